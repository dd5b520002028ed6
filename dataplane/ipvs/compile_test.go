package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/ipvs/guard"
)

func TestServicesBecomeThoseOfTheKernel(t *testing.T) {
	up, draining, down := api.Up, api.Draining, api.Down
	at := netip.MustParseAddrPort
	backend := func(address string, weight int, state api.BackendState) dataplane.Backend {
		return dataplane.Backend{Address: at(address), Weight: weight, State: state}
	}
	backends := func(weight int) []dataplane.Backend {
		return []dataplane.Backend{
			backend("10.0.0.1:1", 1, up), backend("10.0.0.2:1", weight, up), backend("10.0.0.3:1", 7, draining), backend("10.0.0.4:1", 9, down),
		}
	}
	for _, test := range []struct {
		name    string
		service dataplane.Service
		missing string
		want    string
	}{
		{"equal", dataplane.Service{Balance: api.Random, Backends: backends(1)}, "", "rr 57000000 0 open 1 1 0"},
		{"weighted", dataplane.Service{Balance: api.Random, Backends: backends(3)}, "", "wrr 57000000 0 open 1 3 0"},
		{"zero beside equal", dataplane.Service{Backends: backends(0)}, "", "rr 57000000 0 open 1 0 0"},
		{"maglev", dataplane.Service{Balance: api.Maglev, Backends: backends(1)}, "", "mh 57000008 0 open 1 1 0"},
		{"no mh", dataplane.Service{Balance: api.Maglev, Backends: backends(1)}, "mh", "sh 57000008 0 open 1 1 0"},
		{"no mh and sh", dataplane.Service{Balance: api.Maglev, Backends: backends(1)}, "mh sh", "wrr 57000000 0 open 1 1 0"},
		{"p2c", dataplane.Service{Balance: api.P2C, Backends: backends(1)}, "", "wlc 57000000 0 open 1 1 0"},
		{"least-conn", dataplane.Service{Balance: api.LeastConn, Backends: backends(1)}, "", "wlc 57000000 0 open 1 1 0"},
		{"affinity", dataplane.Service{Affinity: 1500 * time.Millisecond, Backends: backends(1)}, "", "rr 57000001 2 open 1 1 0"},
		{"short affinity", dataplane.Service{Affinity: time.Millisecond, Backends: backends(1)}, "", "rr 57000001 1 open 1 1 0"},
		{"draining", dataplane.Service{Backends: backends(1)[2:]}, "", "rr 57000000 0 draining 0"},
		{"down", dataplane.Service{Backends: backends(1)[3:]}, "", "rr 57000000 0 empty"},
		{"nothing", dataplane.Service{}, "", "rr 57000000 0 empty"},
		{"no scheduler", dataplane.Service{}, "rr wrr", "left out"},
		{"near ones alone", dataplane.Service{Slots: []uint32{1}, Backends: backends(5)}, "", "rr 57000000 0 open 0 1 0"},
		{"near ones alone, by hash", dataplane.Service{Balance: api.Maglev, Slots: []uint32{1, 1, 1}, Backends: backends(5)}, "", "mh 57000008 0 open 0 5 0"},
		{"mixed families", dataplane.Service{Backends: []dataplane.Backend{backend("[fd00::1]:1", 1, up)}}, "", "left out"},
	} {
		s := test.service
		if s.Slots == nil {
			fillSlots(&s)
		}
		s.Name, s.Frontends = "s", []netip.AddrPort{at("198.18.0.1:80")}
		missing := map[string]bool{}
		for _, m := range strings.Fields(test.missing) {
			missing[m] = true
		}
		w := compile(dataplane.Table{Services: []*dataplane.Service{&s}}, missing)
		got := "left out"
		if k := w.services[virtual{At: s.Frontends[0]}]; k != nil {
			got = fmt.Sprintf("%s %08x %d %s", k.scheduler, k.flags, k.timeout, verdict(k))
			for _, b := range s.Backends {
				if weight, there := k.destinations[b.Address]; there {
					got += fmt.Sprint(" ", weight)
				}
			}
		}
		if got != test.want || (got == "left out") != (w.left["s"] != nil) {
			t.Errorf("%s: got %s (%v), want %s", test.name, got, w.left, test.want)
		}
	}
}

func TestFrontendsThatCannotBeServedAreRefusedByName(t *testing.T) {
	for _, frontend := range []string{"198.18.0.1:0", "0.0.0.0:80", "127.0.0.1:80", "224.0.0.1:80", "[::ffff:198.18.0.1]:80", "[fe80::1%eth0]:80", "[::1]:80"} {
		s := &dataplane.Service{Name: "bad", Frontends: []netip.AddrPort{netip.MustParseAddrPort(frontend)}}
		good := &dataplane.Service{Name: "good", Frontends: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.2:80")}}
		w := compile(dataplane.Table{Services: []*dataplane.Service{s, good}}, nil)
		if w.left["bad"] == nil || len(w.services) != 1 {
			t.Errorf("%s: left out %v, %d served", frontend, w.left, len(w.services))
		}
	}
	one := &dataplane.Service{Name: "one", Frontends: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.2:80")}}
	two := &dataplane.Service{Name: "two", Frontends: []netip.AddrPort{netip.MustParseAddrPort("198.18.0.1:80"), netip.MustParseAddrPort("198.18.0.2:80")}}
	w := compile(dataplane.Table{Services: []*dataplane.Service{one, two}}, nil)
	if err := w.left["two"]; err == nil || !strings.Contains(err.Error(), "198.18.0.2:80 is served by one") || len(w.services) != 1 {
		t.Errorf("shared frontend: left out %v, %d served", w.left, len(w.services))
	}
}

func TestNetworksAreTheRangesAndTheAddressesOutside(t *testing.T) {
	s := &dataplane.Service{Name: "s", Frontends: []netip.AddrPort{
		netip.MustParseAddrPort("198.18.0.9:80"), netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.1:81"),
	}}
	ranges := []netip.Prefix{netip.MustParsePrefix("198.18.0.77/24")}
	w := compile(dataplane.Table{Services: []*dataplane.Service{s}}, nil)
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("198.18.0.0/24")}
	if got := w.networks(ranges); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r := w.rules(want)
	if len(r.Frontends) != 3 || r.Frontends[virtual{At: s.Frontends[0]}] != guard.Empty {
		t.Errorf("got %v", r.Frontends)
	}
}

// fillSlots gives the backends that are up as many slots as their weight.
func fillSlots(s *dataplane.Service) {
	for i, b := range s.Backends {
		if b.State == api.Up {
			for range b.Weight {
				s.Slots = append(s.Slots, uint32(i))
			}
		}
	}
}
