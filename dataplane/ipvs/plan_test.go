package ipvs

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

var testRange = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}

// randomTable has up to six services of few addresses, so that tables overlap.
func randomTable(r *rand.Rand) dataplane.Table {
	t := dataplane.Table{Ranges: testRange}
	for i := range r.IntN(6) {
		s := &dataplane.Service{
			Name: string(rune('a' + i)), Protocol: []api.Protocol{api.TCP, api.UDP}[r.IntN(2)],
			Balance: []api.Balance{api.Random, api.Maglev, api.P2C}[r.IntN(3)],
		}
		first := [4]byte{198, 18, 0, byte(i)}
		if r.IntN(4) == 0 {
			first = [4]byte{192, 0, 2, byte(i)}
		}
		for p := range 1 + r.IntN(2) {
			s.Frontends = append(s.Frontends, netip.AddrPortFrom(netip.AddrFrom4(first), uint16(80+p)))
		}
		for b := range r.IntN(5) {
			s.Backends = append(s.Backends, dataplane.Backend{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(b)}), 80),
				Weight:  r.IntN(3), State: []api.BackendState{api.Up, api.Draining, api.Down}[r.IntN(3)],
			})
		}
		fillSlots(s)
		t.Services = append(t.Services, s)
	}
	return t
}

// foreign is a service that is not ours.
var foreign = virtual{At: netip.MustParseAddrPort("203.0.113.1:80")}

func TestPlanLeadsFromAnyStateToTheWantedOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ours := func(a netip.Addr) bool { return within(testRange, a) }
	for range 3000 {
		k := newFake(compile(randomTable(r), nil).programmed())
		k.held[foreign] = &service{scheduler: "sh", destinations: map[netip.AddrPort]uint32{netip.MustParseAddrPort("10.9.9.9:1"): 1}}
		for _, s := range k.held { // somebody meddles
			if r.IntN(5) == 0 && s.marked() {
				s.scheduler, s.timeout = "lc", 9
			}
		}
		wanted := compile(randomTable(r), nil).programmed()
		set, remove := plan(wanted, k.held, ours)
		for _, s := range append(set, remove...) {
			before := len(k.held[s.at].dests())
			if err := k.do(s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			if s.op == deleteDestination && wanted[s.at] != nil && before == 1 {
				t.Fatalf("%s: the service is without destinations on the way", s)
			}
		}
		other := k.held[foreign]
		if other == nil || other.scheduler != "sh" || len(other.destinations) != 1 {
			t.Fatal("a foreign service was touched")
		}
		delete(k.held, foreign)
		if !reflect.DeepEqual(k.held, newFake(wanted).held) {
			t.Fatalf("got %v, want %v", k.held, wanted)
		}
		if set, remove := plan(wanted, k.held, ours); len(set)+len(remove) != 0 {
			t.Fatalf("a second plan has %v %v", set, remove)
		}
	}
}

func (s *service) dests() map[netip.AddrPort]uint32 {
	if s == nil {
		return nil
	}
	return s.destinations
}

func TestUnmarkedServicesAreOursByAddressAlone(t *testing.T) {
	in, out := virtual{At: netip.MustParseAddrPort("198.18.0.9:1")}, virtual{At: netip.MustParseAddrPort("192.0.2.9:1")}
	held := map[virtual]*service{in: {}, out: {}, foreign: {flags: svcMark | 1}}
	_, remove := plan(nil, held, func(a netip.Addr) bool { return within(testRange, a) })
	if len(remove) != 2 || remove[0].at != in || remove[1].at != foreign {
		t.Errorf("got %v, want those of %s and, by its mark, %s", remove, in, foreign)
	}
}

func TestRepairsAreToldFromChanges(t *testing.T) {
	v := virtual{At: netip.MustParseAddrPort("198.18.0.1:80")}
	a, b, c := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:1"), netip.MustParseAddrPort("10.0.0.3:1")
	s := &service{scheduler: "rr", flags: svcMark, destinations: map[netip.AddrPort]uint32{a: 1, b: 2}}
	made := objects(map[virtual]*service{v: s})
	for _, test := range []struct {
		step step
		want bool
	}{
		{step{op: addService, at: v, service: s}, true},
		{step{op: editService, at: v, service: s}, true},
		{step{op: editService, at: v, service: &service{scheduler: "wrr", flags: svcMark}}, false},
		{step{op: addService, at: foreign, service: s}, false},
		{step{op: addDestination, at: v, destination: a, weight: 1}, true},
		{step{op: editDestination, at: v, destination: b, weight: 2}, true},
		{step{op: editDestination, at: v, destination: b, weight: 3}, false},
		{step{op: addDestination, at: v, destination: c, weight: 1}, false},
		{step{op: deleteDestination, at: v, destination: b}, false},
		{step{op: deleteDestination, at: v, destination: c}, true},
		{step{op: deleteService, at: v}, false},
		{step{op: deleteService, at: foreign}, true},
	} {
		if got := test.step.repairs(made); got != test.want {
			t.Errorf("%s: repair %t, want %t", test.step, got, test.want)
		}
		if test.step.repairs(nil) {
			t.Errorf("%s: a repair before the first Set", test.step)
		}
	}
}

func TestMissingSchedulerIsReplacedForAllFrontends(t *testing.T) {
	k := newFake(nil)
	k.lacks["mh"], k.lacks["sh"], k.lacks["wlc"], k.lacks["rr"] = true, true, true, true
	b := &Balancer{kernel: k, log: slog.New(slog.DiscardHandler), missing: map[string]bool{}, resets: map[object]uint64{}}
	table := randomTable(rand.New(rand.NewPCG(5, 5)))
	for len(table.Services) < 5 {
		table = randomTable(rand.New(rand.NewPCG(rand.Uint64(), 5)))
	}
	for _, s := range table.Services {
		s.Backends = []dataplane.Backend{{Address: netip.MustParseAddrPort("10.0.0.1:1"), Weight: 1, State: api.Up}}
		s.Slots = []uint32{0}
	}
	w := compile(table, b.missing)
	var c dataplane.Changes
	if _, err := b.setServices(t.Context(), w, func(netip.Addr) bool { return true }, &c); err != nil || len(w.left) > 0 {
		t.Fatalf("got %v, %v", err, w.left)
	}
	for v, s := range k.held {
		if s.scheduler != "wrr" || s.flags != svcMark {
			t.Errorf("%s: got %s with flags %#x, want plain wrr", v, s.scheduler, s.flags)
		}
	}
	k.lacks["wrr"] = true
	k.held = map[virtual]*service{}
	w = compile(table, b.missing)
	if _, err := b.setServices(t.Context(), w, func(netip.Addr) bool { return true }, &c); err != nil || len(w.left) != len(table.Services) || len(w.services) != 0 {
		t.Errorf("without any scheduler: %v, %v", err, w.left)
	}
}
