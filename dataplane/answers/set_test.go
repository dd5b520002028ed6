package answers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

// badSums reads how many datagrams had a wrong checksum, in this namespace.
func badSums() (total uint64, err error) {
	for _, file := range []string{"snmp", "snmp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return 0, err
		}
		var names []string
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			var n uint64
			switch {
			case f[0] == "Udp6InCsumErrors":
				fmt.Sscan(f[1], &n)
			case f[0] == "Udp:" && names == nil:
				names = f
			case f[0] == "Udp:":
				for i := range f {
					if names[i] == "InCsumErrors" {
						fmt.Sscan(f[i], &n)
					}
				}
			}
			total += n
		}
	}
	return total, nil
}

func pins(t testing.TB, dir string) (n int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pin.LinkPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func names(list ...Name) *fixed {
	f := &fixed{names: map[string]Name{}}
	for _, n := range list {
		f.names[n.Wire] = n
	}
	return f
}

func small(wire string) Name {
	return Name{Wire: wire, A: Set{TTL: 5, Addresses: []byte{10, 0, 0, 1}}, ApexLength: 1}
}

func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadDnsAnswer()
	if err != nil {
		t.Fatal(err)
	}
	sinktest.CheckLayout(t, spec, map[string]any{
		"dns_config": bpf.DnsAnswerDnsConfig{}, "dns_set": bpf.DnsAnswerDnsSet{}, "dns_name": bpf.DnsAnswerDnsName{},
		"dns_zone": bpf.DnsAnswerDnsZone{}, "dns_beat": bpf.DnsAnswerDnsBeat{}, "dns_count": bpf.DnsAnswerDnsCount{},
	})
}

func TestLoadsWithSmallVerifierEffort(t *testing.T) {
	sinktest.CheckVerifierEffort(t, sharedAnswerer(t).programs.Programs, 250_000)
}

func TestEveryReasonHasAName(t *testing.T) {
	for fate := bpf.DnsAnswerDnsFateDNS_PASS_STALE; fate < bpf.DnsAnswerDnsFateDNS_FATE_MAX; fate++ {
		if reasons[fate] == "" {
			t.Errorf("fate %d has no name", fate)
		}
	}
}

// TestDamageIsRepaired: somebody else changes what we made, and the next Set
// finds it.
func TestDamageIsRepaired(t *testing.T) {
	put := func(a *Answerer, name string, key, value any) error { return a.maps[name].Put(key, value) }
	elementOf := func(a *Answerer, n Name) (uint64, bpf.DnsAnswerDnsName) {
		key, value, _ := encode(a.seed, n)
		return key, value
	}
	for _, c := range []struct {
		name   string
		damage func(r *rig) error
	}{
		{"a name removed", func(r *rig) error {
			key, _ := elementOf(r.a, small("\x01a\x00"))
			return r.a.maps[bpf.DnsAnswerMapDnsNames].Delete(&key)
		}},
		{"a name changed", func(r *rig) error {
			key, value := elementOf(r.a, small("\x01a\x00"))
			value.V4Be[0]++
			return put(r.a, bpf.DnsAnswerMapDnsNames, &key, &value)
		}},
		{"a foreign name", func(r *rig) error {
			key, value := elementOf(r.a, small("\x01x\x00"))
			return put(r.a, bpf.DnsAnswerMapDnsNames, &key, &value)
		}},
		{"an element without sense", func(r *rig) error {
			key, value := uint64(1), bpf.DnsAnswerDnsName{Name: [16]uint64{0x4141414141414141}}
			return put(r.a, bpf.DnsAnswerMapDnsNames, &key, &value)
		}},
		{"a zone removed", func(r *rig) error {
			return r.a.maps[bpf.DnsAnswerMapDnsZones].Delete(uint32(0))
		}},
		{"a zone changed", func(r *rig) error {
			return put(r.a, bpf.DnsAnswerMapDnsZones, uint32(0), &bpf.DnsAnswerDnsZone{Size: 9})
		}},
		{"the configuration", func(r *rig) error {
			return put(r.a, bpf.DnsAnswerMapDnsConfig, uint32(0), &bpf.DnsAnswerDnsConfig{})
		}},
		{"the link detached", func(r *rig) error {
			for _, l := range linksOf(r.t, r.a) {
				if err := l.Detach(); err != nil {
					return err
				}
				l.Close()
			}
			return nil
		}},
		{"pins removed", func(r *rig) error {
			return errors.Join(os.Remove(filepath.Join(r.a.dir, bpf.DnsAnswerMapDnsNames)), os.RemoveAll(filepath.Join(r.a.options.PinDir, linkFile(r))))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.table.Names, r.table.Zones = names(small("\x01a\x00"), small("\x01b\x00")), [][]byte{make([]byte, 40)}
			r.set()
			if err := c.damage(r); err != nil {
				t.Fatal(err)
			}
			repaired, word := dataplane.Changes{}, uint32(0)
			r.node.must(func() (err error) {
				repaired, err = r.a.Set(context.Background(), r.table)
				return err
			})
			if repaired.Repaired == 0 && c.name != "a zone changed" || repaired.Repaired+repaired.Written == 0 {
				t.Errorf("Set repaired nothing: %+v", repaired)
			}
			for _, qtype := range []uint16{typeA, typeAAAA} {
				if word, _ = run(t, r.a, (packet{from: cli4, to: here4, payload: question(t, "a.", qtype)}).frame()); word != tcxRedirect {
					t.Errorf("type %d of a. is not answered any more", qtype)
				}
			}
			if word, _ = run(t, r.a, (packet{from: cli4, to: here4, payload: question(t, "x.", typeA)}).frame()); word != tcxNext {
				t.Error("x. is answered")
			}
			r.node.must(func() (err error) {
				repaired, err = r.a.Set(context.Background(), r.table)
				return err
			})
			if repaired != (dataplane.Changes{}) {
				t.Errorf("the second Set changes %+v", repaired)
			}
		})
	}
}

func linkFile(r *rig) string {
	found, err := filepath.Glob(filepath.Join(r.a.options.PinDir, pin.LinkPrefix+"*"))
	if err != nil || len(found) != 1 {
		r.t.Fatalf("links: %v, %v", found, err)
	}
	return filepath.Base(found[0])
}

func linksOf(t testing.TB, a *Answerer) (all []link.Link) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(a.options.PinDir, pin.LinkPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// TestAnotherProcessGoesOn: an agent that follows finds the maps, changes what
// differs, and the program runs all the time.
func TestAnotherProcessGoesOn(t *testing.T) {
	r := newRig(t)
	r.table.Names = names(small("\x01a\x00"), small("\x01b\x00"))
	r.set()
	counted := counters(t, r.a)
	if err := r.a.Close(); err != nil {
		t.Fatal(err)
	}
	r.a = open(t, r.a.options)
	if n := pins(t, r.a.options.PinDir); n != 1 {
		t.Fatalf("%d links are pinned, want 1", n)
	}
	r.table.Names = names(small("\x01b\x00"), small("\x01c\x00"))
	var c dataplane.Changes
	r.node.must(func() (err error) { c, err = r.a.Set(context.Background(), r.table); return err })
	if c.Written != 1 || c.Removed != 1 || c.Repaired != 0 {
		t.Errorf("got %+v, want one name written and one removed", c)
	}
	for name, want := range map[string]uint32{"a.": tcxNext, "b.": tcxRedirect, "c.": tcxRedirect} {
		if word, _ := run(t, r.a, (packet{from: cli4, to: here4, payload: question(t, name, typeA)}).frame()); word != want {
			t.Errorf("%s: word %d, want %d", name, word, want)
		}
	}
	if now := counters(t, r.a); now.Answered != counted.Answered+2 {
		t.Errorf("counted %d after %d", now.Answered, counted.Answered)
	}
	r.a.Close()
	n, err := Cleanup(r.a.options.PinDir)
	if err != nil || n != 7 {
		t.Errorf("Cleanup removed %d pins, %v; want 7", n, err)
	}
	if _, err := os.Stat(r.a.options.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestNamesBeyondTheRoomAreLeftToTheProxy(t *testing.T) {
	o := newOptions(t)
	o.MaxNames = 8
	a := open(t, o)
	list := []Name{}
	for i := range 20 {
		list = append(list, small(fmt.Sprintf("\x02%02d\x00", i)))
	}
	table := Table{Listen: tableOf(compile(t, fleet())).Listen, Names: names(list...)}
	if _, err := setNowhere(a, table); err != nil {
		t.Fatal(err)
	}
	if n := a.LeftOut(); n != 12 {
		t.Errorf("%d names are left out, want 12", n)
	}
	table.Names = names(list[:3]...)
	if _, err := setNowhere(a, table); err != nil {
		t.Fatal(err)
	}
	if n := a.LeftOut(); n != 0 {
		t.Errorf("%d names are left out, want none", n)
	}
}

func TestRefusesWhatItCannotHave(t *testing.T) {
	a := open(t, newOptions(t))
	table := Table{Listen: append(tableOf(compile(t, fleet())).Listen, ap("10.0.0.1:54")), Names: names()}
	if _, err := setNowhere(a, table); err == nil || !strings.Contains(err.Error(), "another port") {
		t.Errorf("got %v, want an error that names the port", err)
	}
	a.Close()
	if _, err := a.Set(context.Background(), table); err == nil {
		t.Error("a closed answerer takes a table")
	}
	if _, err := a.Counters(); err == nil {
		t.Error("a closed answerer has counters")
	}
	if err := errors.Join(a.Beat(), a.Silence(), a.Withdraw(nil), a.Publish(nil, names(), nil), a.Close()); err != nil {
		t.Error(err)
	}
}
