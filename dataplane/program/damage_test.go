package program

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/pin"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

func TestDamageIsRepairedAndCounted(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	z := service("z/tcp/4", api.TCP, "203.0.113.7:81", "10.80.0.11:81")
	l.serve(a, z)
	b := l.open()
	set(t, b, table(a, z))
	pinned := func(name string) *ebpf.Map {
		t.Helper()
		m, err := ebpf.LoadPinnedMap(filepath.Join(b.dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	wipe := func(name string) {
		t.Helper()
		m := pinned(name)
		defer m.Close()
		zero := make([]byte, m.ValueSize())
		for id := range m.MaxEntries() {
			if err := m.Put(id, zero); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func()
		want   int
	}{
		{"frontend deleted", func() {
			key := encodeFrontend(a.Frontends[0], protocols[api.TCP])
			if err := pinned(bpf.BalanceMapFrontends).Delete(&key); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"address deleted", func() {
			key := encodeAddress(z.Frontends[0].Addr())
			if err := pinned(bpf.BalanceMapAddresses).Delete(&key); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"services wiped", func() { wipe(bpf.BalanceMapServices) }, 2},
		{"slots wiped", func() { wipe(bpf.BalanceMapSlots) }, 2},
		{"backends wiped", func() { wipe(bpf.BalanceMapBackends) }, 3},
		{"names wiped", func() { wipe(bpf.BalanceMapNames) }, 2},
		{"ranges wiped", func() { wipe(bpf.BalanceMapRanges) }, 1},
		{"link detached", func() {
			held, err := link.LoadPinnedLink(filepath.Join(l.pins, pin.LinkPrefix+"connect4"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := held.Detach(); err != nil {
				t.Fatal(err)
			}
		}, 1},
		{"link's pin removed", func() { os.Remove(filepath.Join(l.pins, pin.LinkPrefix+"connect4")) }, 1},
		{"all pins removed", func() { os.RemoveAll(l.pins) }, len(hooks) + len(b.maps)},
		{"program replaced", func() {
			held, err := link.LoadPinnedLink(filepath.Join(l.pins, pin.LinkPrefix+"connect4"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := held.Update(foreignProgram(t)); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.damage()
			got := set(t, b, table(a, z))
			if got.Repaired != c.want || got.Written != 0 || got.Removed != 0 {
				t.Errorf("got %+v, want %d repaired", got, c.want)
			}
			spread(t, l.dial("tcp", "198.18.0.10:80", 5))
			spread(t, l.dial("tcp", "203.0.113.7:81", 5))
			if c := set(t, b, table(a, z)); c != nothing {
				t.Errorf("the next Set: got %+v, want no change", c)
			}
		})
	}
}

func foreignProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	return sinktest.ForeignProgram(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, 1)
}
