package deliver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

var nothing dataplane.Changes

func TestTheSecondSetChangesNothing(t *testing.T) {
	r := newRig(t)
	if c := r.set(); c != nothing {
		t.Errorf("got %+v, want no change", c)
	}
}

func TestASetLeavesNothingOfTheTableBefore(t *testing.T) {
	r := newRig(t)
	r.table = dataplane.DeliveryTable{}
	c := r.set()
	if c.Removed != 8+4+2 || c.Repaired != 0 {
		t.Errorf("got %+v, want 8 targets, 4 ends and 2 links removed", c)
	}
	entries, err := os.ReadDir(r.d.options.PinDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the pin folder holds %v (%v), want the maps' folder alone", entries, err)
	}
	if c := r.set(); c != nothing {
		t.Errorf("the next Set: got %+v, want no change", c)
	}
}

func TestDamageIsRepairedAndCounted(t *testing.T) {
	r := newRig(t)
	path := func(hook string) string {
		index := r.node.link("n0").Attrs().Index
		return filepath.Join(r.d.options.PinDir, pin.LinkPrefix+linkName(index, hook))
	}
	held := func(hook string) link.Link {
		l, err := link.LoadPinnedLink(path(hook), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	for _, c := range []struct {
		name   string
		damage func() error
		want   int
	}{
		{"target deleted", func() error {
			w, _ := compile(r.table, limits{100, 100})
			for key := range w.targets {
				return r.d.maps[bpf.DeliverMapTargets].Delete(&key)
			}
			return nil
		}, 1},
		{"role changed", func() error {
			key := encodeAddress(edge4)
			return r.d.maps[bpf.DeliverMapEnds].Put(&key, &bpf.DeliverTunnelEnd{})
		}, 1},
		{"config changed", func() error {
			return r.d.maps[bpf.DeliverMapConfig].Put(uint32(0), &bpf.DeliverConfig{Mtu: 9})
		}, 1},
		{"link detached", func() error { return held("ingress").Detach() }, 1},
		{"pin of a link removed", func() error { return os.Remove(path("egress")) }, 1},
		{"program replaced", func() error { return held("egress").Update(foreignProgram(t)) }, 1},
		{"pin of a map removed", func() error { return os.Remove(filepath.Join(r.d.dir, bpf.DeliverMapFlows)) }, 1},
		{"all pins removed", func() error { return os.RemoveAll(r.d.options.PinDir) }, 2 + 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.damage(); err != nil {
				t.Fatal(err)
			}
			if got := r.set(); got.Repaired != c.want || got.Written != 0 || got.Removed != 0 {
				t.Errorf("got %+v, want %d repaired", got, c.want)
			}
			r.requests(vip4, 3, 10, 10)
			if got := r.set(); got != nothing {
				t.Errorf("the next Set: got %+v, want no change", got)
			}
		})
	}
}

// What is in a map and not wanted is removed, whoever put it there.
func TestForeignEntriesAreRemoved(t *testing.T) {
	d := open(t, newOptions(t))
	set(t, d, table())
	key := bpf.DeliverTarget{VipPortBe: 1}
	if err := d.maps[bpf.DeliverMapTargets].Put(&key, uint32(1)); err != nil {
		t.Fatal(err)
	}
	if c := set(t, d, table()); c != (dataplane.Changes{Removed: 1}) {
		t.Errorf("got %+v, want 1 removed", c)
	}
}

func foreignProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	return sinktest.ForeignProgram(t, ebpf.SchedCLS, ebpf.AttachTCXEgress, -1)
}

func TestAnInterfaceThatIsMadeAnewIsAttachedAnew(t *testing.T) {
	r := newRig(t)
	if err := r.node.links.LinkDel(r.node.link("n0")); err != nil {
		t.Fatal(err)
	}
	err := r.node.do(func() error {
		_, err := r.d.Set(context.Background(), r.table)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "n0") {
		t.Errorf("Set without the interface: got %v, want an error that names it", err)
	}
	wire(r.node, "n0", r.edge, "e1")
	r.edge.up("e1", "10.80.0.31/24", "fd00:80::31/64")
	r.node.up("n0", "10.80.0.11/24", "fd00:80::11/64")
	r.node.route("0.0.0.0/0", "10.80.0.31", 0)
	r.set()
	r.requests(vip4, 3, 10, 10)
	if c := r.set(); c != nothing {
		t.Errorf("the next Set: got %+v, want no change", c)
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	r := newRig(t)
	removed, err := Cleanup(r.d.options.PinDir)
	if err != nil || removed != 2+6 {
		t.Errorf("got %d removed and %v, want 8", removed, err)
	}
	if _, err := os.Stat(r.d.options.PinDir); !os.IsNotExist(err) {
		t.Errorf("the pin folder: got %v, want that it is gone", err)
	}
	r.node.must(func() error {
		i, err := net.InterfaceByName("n0")
		if err != nil {
			return err
		}
		for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			q, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: attach})
			if err != nil {
				return err
			}
			if len(q.Programs) != 0 {
				return fmt.Errorf("%d programs are attached still", len(q.Programs))
			}
		}
		return nil
	})
	if n, err := Cleanup(filepath.Join(t.TempDir(), "none")); n != 0 || err != nil {
		t.Errorf("without a folder: got %d and %v", n, err)
	}
}

func TestTheMTUIsTheSmallestOfTheInterfaces(t *testing.T) {
	if got := smallestMTU([]netInterface{{mtu: 9000}, {mtu: 1400}, {mtu: 1500}}); got != 1400 {
		t.Errorf("got %d, want 1400", got)
	}
	r := newRig(t)
	if err := r.node.links.LinkSetMTU(r.node.link("n0"), 1300); err != nil {
		t.Fatal(err)
	}
	if c := r.set(); c != (dataplane.Changes{Written: 1}) {
		t.Errorf("got %+v, want the config written", c)
	}
	_, _ = ingress(t, r.d, families[0].wrap(packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip()))
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	_, out := egress(t, r.d, packet{from: back4, to: cli4, protocol: tcp, flags: syn | ack, options: mss(1260)}.frame())
	expect(t, "answer", tcxNext, out, tcxNext, packet{from: vip4, to: cli4, protocol: tcp, flags: syn | ack, options: mss(1300 - 40 - 40)}.frame())
}
