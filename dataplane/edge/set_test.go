package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/room"
)

func TestSetIsIdempotentAndOutlivesTheProcess(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	e := open(t, o)
	s := eight(api.TCP)
	s.Allow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	wanted := table(s, service("six", api.UDP, "[fd77::1]:53", "[fd00::11]:53"))
	if c := set(t, e, wanted); c.Written == 0 || c.Repaired > 0 || c.Removed > 0 {
		t.Errorf("the first Set: %+v", c)
	}
	if c := set(t, e, wanted); c != (dataplane.Changes{}) {
		t.Errorf("the second Set: %+v", c)
	}
	f := frame{src: client(1), dst: addr("198.18.0.1:80"), protocol: tcp}
	before := backend(t, hooks["xdp"], e, f)
	e.Close()
	e = open(t, o)
	if got := backend(t, hooks["xdp"], e, f); got != before {
		t.Errorf("a new process sends to %s, not %s", got, before)
	}
	if c := set(t, e, wanted); c != (dataplane.Changes{}) {
		t.Errorf("the new process's first Set: %+v", c)
	}
	if c := set(t, e, dataplane.EdgeTable{}); c.Removed == 0 {
		t.Errorf("emptied: %+v", c)
	}
	if got := backend(t, hooks["xdp"], e, f); got != pass {
		t.Errorf("with an empty table: %s", got)
	}
}

func TestDamageIsRepairedAndCounted(t *testing.T) {
	w := newWires(t)
	o := testOptions(t, newBPFFS(t))
	e := open(t, o)
	s := eight(api.TCP)
	s.Allow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	wanted := table(s)
	wanted.Interfaces = map[string]dataplane.AttachMode{"e0": dataplane.AttachNative, "e1": dataplane.AttachTCX}
	t.Cleanup(func() { Cleanup(o.PinDir) })
	apply := func() (c dataplane.Changes) {
		w.in(w.edge, func() { c = set(t, e, wanted) })
		return c
	}
	apply()
	f := frame{src: client(1), dst: addr("198.18.0.1:80"), protocol: tcp}
	want := backend(t, hooks["xdp"], e, f)
	id := e.entries["web"].id
	for name, damage := range map[string]func() error{
		"frontend removed": func() error {
			return e.maps[bpf.EdgeMapEdgeFrontends].Delete(encodeFrontend(addr("198.18.0.1:80"), tcp))
		},
		"address removed": func() error {
			return e.maps[bpf.EdgeMapEdgeAddresses].Delete(encodeAddress(addr("198.18.0.1:80").Addr()))
		},
		"service wiped": func() error { e.cells.services[id] = bpf.EdgeEdgeService{}; return nil },
		"slots wiped":   func() error { clear(e.cells.slots); return nil },
		"backends down": func() error {
			for i := range e.cells.backends {
				e.cells.backends[i].State = stateAbsent
			}
			return nil
		},
		"hops wiped":       func() error { clear(e.cells.hops); return nil },
		"filter wiped":     func() error { clear(e.cells.filter); return nil },
		"addresses wiped":  func() error { clear(e.cells.config); return nil },
		"networks removed": func() error { return e.maps[bpf.EdgeMapEdgeAllowed].Delete(encodeAllowed(id, s.Allow[0])) },
		"map unpinned":     func() error { return os.Remove(e.dir + "/edge_slots") },
		"xdp detached":     func() error { return e.links[place(t, w, e, dataplane.AttachNative, "e0")].Detach() },
		"tcx detached":     func() error { return e.links[place(t, w, e, dataplane.AttachTCX, "e1")].Detach() },
		"link unpinned": func() error {
			return os.Remove(o.PinDir + "/" + place(t, w, e, dataplane.AttachTCX, "e1").pin())
		},
	} {
		if err := damage(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c := apply(); c.Repaired == 0 || c.Written > 0 {
			t.Errorf("%s: %+v", name, c)
		}
		if c := apply(); c != (dataplane.Changes{}) {
			t.Errorf("%s: after the repair %+v", name, c)
		}
		if got := backend(t, hooks["xdp"], e, f); got != want {
			t.Errorf("%s: after the repair the flow is at %s, not %s", name, got, want)
		}
	}
}

func place(t *testing.T, w *wires, e *Edge, mode dataplane.AttachMode, name string) (p linkPlace) {
	t.Helper()
	w.in(w.edge, func() {
		index, err := interfaceIndex(name)
		if err != nil {
			t.Fatal(err)
		}
		p = linkPlace{mode: mode, index: index}
	})
	return p
}

func TestInterfacesComeAndGo(t *testing.T) {
	w := newWires(t)
	o := testOptions(t, newBPFFS(t))
	e := open(t, o)
	t.Cleanup(func() { Cleanup(o.PinDir) })
	apply := func(interfaces map[string]dataplane.AttachMode) (err error) {
		wanted := table(eight(api.TCP))
		wanted.Interfaces = interfaces
		w.in(w.edge, func() { _, err = e.Set(context.Background(), wanted) })
		return err
	}
	places := func() (all []string) {
		files, err := os.ReadDir(o.PinDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !f.IsDir() {
				all = append(all, f.Name())
			}
		}
		return all
	}
	zero, one := place(t, w, e, "", "e0").index, place(t, w, e, "", "e1").index
	for _, step := range []struct {
		interfaces map[string]dataplane.AttachMode
		want       []string
		wrong      string
	}{
		{map[string]dataplane.AttachMode{"e0": dataplane.AttachAuto}, []string{fmt.Sprintf("link-tcx-%d", zero)}, ""}, // a veth
		{map[string]dataplane.AttachMode{"e0": dataplane.AttachGeneric}, []string{fmt.Sprintf("link-generic-%d", zero)}, ""},
		{map[string]dataplane.AttachMode{"e0": dataplane.AttachAuto}, []string{fmt.Sprintf("link-generic-%d", zero)}, ""},
		{map[string]dataplane.AttachMode{"e0": dataplane.AttachTCX, "e1": dataplane.AttachNative}, []string{fmt.Sprintf("link-native-%d", one), fmt.Sprintf("link-tcx-%d", zero)}, ""},
		{map[string]dataplane.AttachMode{"e0": dataplane.AttachTCX, "nowhere": dataplane.AttachAuto}, []string{fmt.Sprintf("link-tcx-%d", zero)}, "attach to nowhere"},
		{map[string]dataplane.AttachMode{"e0": "sideways"}, nil, `the mode "sideways" is unknown`},
		{nil, nil, ""},
	} {
		err := apply(step.interfaces)
		if (err != nil) != (step.wrong != "") || err != nil && !strings.Contains(err.Error(), step.wrong) {
			t.Errorf("%v: error %v", step.interfaces, err)
		}
		if got := places(); !slices.Equal(got, step.want) {
			t.Errorf("%v: pinned are %v, want %v", step.interfaces, got, step.want)
		}
	}
	if n, err := Cleanup(o.PinDir); n == 0 || err != nil {
		t.Errorf("Cleanup: %d, %v", n, err)
	}
	if _, err := os.Stat(o.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Cleanup: %v", err)
	}
}

func TestAServiceThatCannotBeServedIsLeftOut(t *testing.T) {
	e := newEdge(t)
	good := service("good", api.TCP, "198.18.0.1:80", "10.80.0.11:80")
	for want, spoil := range map[string]func(s *dataplane.EdgeService){
		"the protocol":                func(s *dataplane.EdgeService) { s.Protocol = "sctp" },
		"delivery by":                 func(s *dataplane.EdgeService) { s.Deliver = "pigeon" },
		"another address family":      func(s *dataplane.EdgeService) { s.Backends[0].Address = addr("[fd00::1]:80") },
		"is good's":                   func(s *dataplane.EdgeService) { s.Frontends = good.Frontends },
		"the state":                   func(s *dataplane.EdgeService) { s.Backends[0].State = "asleep" },
		"given twice":                 func(s *dataplane.EdgeService) { s.Backends[1] = s.Backends[0] },
		"a slot holds backend 7 of 2": func(s *dataplane.EdgeService) { s.Slots[0] = 7 },
		"a slot holds backend 8 of 2": func(s *dataplane.EdgeService) { s.Previous = []uint32{8, 0} },
		"2 slots and 1 previous":      func(s *dataplane.EdgeService) { s.Previous = []uint32{1} },
		"the name has 300 bytes":      func(s *dataplane.EdgeService) { s.Name = strings.Repeat("x", 300) },
		"table of slots is full":      func(s *dataplane.EdgeService) { s.Slots = make([]uint32, 9000) },
		"no address of that family":   func(s *dataplane.EdgeService) { s.Backends[0].Node = netip.MustParseAddr("fd00::9") },
		"the table of frontends is full": func(s *dataplane.EdgeService) {
			for i := range 200 {
				s.Frontends = append(s.Frontends, netip.AddrPortFrom(s.Frontends[0].Addr(), uint16(1000+i)))
			}
		},
	} {
		bad := service("wrong", api.TCP, "198.18.0.2:80", "10.80.0.21:80", "10.80.0.22:80")
		spoil(bad)
		wanted := table(good, bad)
		wanted.Source6 = netip.Addr{}
		_, err := e.Set(context.Background(), wanted)
		var left *dataplane.LeftOut
		if !errors.As(err, &left) || len(left.Services) != 1 || !strings.Contains(left.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
		if got := backend(t, hooks["xdp"], e, frame{src: client(1), dst: addr("198.18.0.1:80"), protocol: tcp}); got != "10.80.0.11:80" {
			t.Errorf("%s: the good one's packet: %s", want, got)
		}
	}
}

// TestRandomTablesEndUpInTheKernelAsTheyAre compares the maps with each of many
// tables, with new processes now and then.
func TestRandomTablesEndUpInTheKernelAsTheyAre(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	o := testOptions(t, newBPFFS(t))
	e := open(t, o)
	for step := range 150 {
		if random.IntN(15) == 0 {
			e.Close()
			e = open(t, o)
		}
		var services []*dataplane.EdgeService
		for i := range 6 {
			if random.IntN(3) > 0 {
				services = append(services, randomService(random, i))
			}
		}
		set(t, e, table(services...))
		compare(t, e, services)
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
}

func randomService(random *rand.Rand, i int) *dataplane.EdgeService {
	s := service(fmt.Sprintf("s%d", i), api.TCP, fmt.Sprintf("198.18.0.%d:80", i+1))
	for j := range random.IntN(8) {
		at := netip.AddrFrom4([4]byte{10, 80, byte(i), byte(j)})
		s.Backends = append(s.Backends, dataplane.EdgeBackend{
			Address: netip.AddrPortFrom(at, 80), Node: netip.AddrFrom4([4]byte{10, 81, byte(i), byte(random.IntN(3))}),
			State: []api.BackendState{api.Up, api.Draining, api.Down}[random.IntN(3)],
		})
	}
	if n := len(s.Backends); n > 0 {
		for range random.IntN(64) {
			s.Slots = append(s.Slots, uint32(random.IntN(n)))
		}
		if random.IntN(2) == 0 {
			for range s.Slots {
				s.Previous = append(s.Previous, uint32(random.IntN(n)))
			}
		}
	}
	for j := range random.IntN(3) {
		s.Allow = append(s.Allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i), byte(j)}), 16))
	}
	return s
}

func compare(t *testing.T, e *Edge, services []*dataplane.EdgeService) {
	t.Helper()
	frontends, err := readHash[bpf.EdgeFrontendKey, bpf.EdgeEdgeFrontend](e.maps[bpf.EdgeMapEdgeFrontends])
	if err != nil || len(frontends) != len(services) {
		t.Errorf("%d frontends, want %d (%v)", len(frontends), len(services), err)
	}
	live, networks := 0, 0
	for _, s := range services {
		networks += len(s.Allow)
		id := frontends[encodeFrontend(s.Frontends[0], tcp)].Service
		cell := e.cells.services[id]
		run := room.RunOf(cell.Run)
		if decodeName(&e.cells.names[id]) != s.Name || int(run.Count) != len(s.Slots) || (cell.Flags&flagAllow != 0) != (len(s.Allow) > 0) {
			t.Errorf("service %s is %q with %d slots and flags %d", s.Name, decodeName(&e.cells.names[id]), run.Count, cell.Flags)
			return
		}
		for i, slot := range e.cells.slots[run.First : run.First+run.Count] {
			b, want := e.cells.backends[slot.Current], s.Backends[s.Slots[i]]
			if decodeAddress(b.Addr) != want.Address.Addr() || decodeAddress(b.Node) != want.Node || b.State != states[want.State] || b.Service != id {
				t.Errorf("slot %d of %s leads to %+v, want %+v", i, s.Name, b, want)
			}
			if s.Previous == nil || s.Previous[i] == s.Slots[i] {
				// Its own, or what an earlier process knew.
				if was := e.cells.backends[slot.Previous]; slot.Previous != 0 && (was.Service != id || was.State == stateAbsent) {
					t.Errorf("slot %d of %s was of %+v", i, s.Name, was)
				}
			} else if got := decodeAddress(e.cells.backends[slot.Previous].Addr); got != s.Backends[s.Previous[i]].Address.Addr() {
				t.Errorf("slot %d of %s was %s's", i, s.Name, got)
			}
		}
		live += len(s.Backends)
	}
	for _, b := range e.cells.backends {
		if b.State != stateAbsent {
			live--
		}
	}
	held := 0
	var key bpf.EdgeEdgeAllowKey
	var value uint32
	for all := e.maps[bpf.EdgeMapEdgeAllowed].Iterate(); all.Next(&key, &value); {
		held++
	}
	if live != 0 || held != networks {
		t.Errorf("%d backends too few, %d networks, want %d", live, held, networks)
	}
}
