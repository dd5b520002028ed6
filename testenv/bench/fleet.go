package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv/bench/load"
)

// Services of a soak, and the backends that each may have: all answer at all
// times, so whichever is used must work. See load.ServiceOf for the addresses.
const (
	soakServices = 10
	soakBackends = 100
	// leastUp backends of a service always are.
	leastUp = 10
	// lull is how long a backend drains before it may be removed: longer than any
	// of the new connections lives.
	lull = 500 * time.Millisecond
)

// fleet is what a soak's table should hold. Services of the first half have
// connections that stay open, so theirs only drain and come back; the others'
// backends are added and removed too.
type fleet struct {
	random   *rand.Rand
	services []*dataplane.Service
	spare    []map[netip.AddrPort]bool      // of each service: not in the table
	drained  []map[netip.AddrPort]time.Time // of each service: draining since
}

func soakFrontend(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 1}), servicePort)
}

func newFleet(random *rand.Rand) *fleet {
	f := &fleet{random: random}
	for i := range soakServices {
		s := &dataplane.Service{
			Name: fmt.Sprintf("soak%05d.bench/tcp/4", i), Protocol: api.TCP, Balance: api.Random,
			Frontends: []netip.AddrPort{soakFrontend(i)},
		}
		for j := range soakBackends {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(i), byte(j + 1)}), load.FirstPort)
			s.Backends = append(s.Backends, dataplane.Backend{Address: at, Weight: 1, State: api.Up})
		}
		setState(s, 0, api.Up)
		f.services = append(f.services, s)
		f.spare = append(f.spare, map[netip.AddrPort]bool{})
		f.drained = append(f.drained, map[netip.AddrPort]time.Time{})
	}
	return f
}

// table shares its services with later ones.
func (f *fleet) table() dataplane.Table {
	return dataplane.Table{Ranges: []netip.Prefix{vipNet}, Services: slices.Clone(f.services)}
}

// grow adds a service that nobody uses, behind the others by name.
func (f *fleet) grow() {
	n := len(f.services)
	f.services = append(f.services, &dataplane.Service{
		Name: fmt.Sprintf("soak%05d.bench/tcp/4", n), Protocol: api.TCP, Balance: api.Random,
		Frontends: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(n >> 8), byte(n)}), servicePort)},
		Backends:  []dataplane.Backend{{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, 200, 1}), load.FirstPort), Weight: 1, State: api.Up}},
		Slots:     []uint32{0},
	})
}

// change picks a service and changes one of its backends: drain, back up,
// another weight, or out of the table and in again.
func (f *fleet) change() ownerChange {
	i := f.random.IntN(soakServices)
	s := clone(f.services[i])
	f.services[i] = s
	j := f.random.IntN(len(s.Backends))
	b := &s.Backends[j]
	up := 0
	for _, b := range s.Backends {
		if b.State == api.Up {
			up++
		}
	}
	since, drains := f.drained[i][b.Address]
	switch kind := f.random.IntN(4); {
	case i >= soakServices/2 && drains && kind < 2 && time.Since(since) > lull:
		f.spare[i][b.Address] = true
		delete(f.drained[i], b.Address)
		s.Backends = slices.Delete(s.Backends, j, j+1)
	case drains:
		delete(f.drained[i], b.Address)
		b.State = api.Up
	case len(f.spare[i]) > 0 && kind == 0:
		f.add(i, s)
	case up > leastUp && kind < 3:
		f.drained[i][b.Address] = time.Now()
		b.State = api.Draining
	default:
		b.Weight = 1 + f.random.IntN(4)
	}
	fillSlots(s)
	return ownerChange{Index: i, Service: s}
}

// add puts a spare backend into the service.
func (f *fleet) add(i int, s *dataplane.Service) {
	for at := range f.spare[i] {
		delete(f.spare[i], at)
		s.Backends = append(s.Backends, dataplane.Backend{Address: at, Weight: 1, State: api.Up})
		break
	}
	slices.SortFunc(s.Backends, func(a, b dataplane.Backend) int { return a.Address.Compare(b.Address) })
}

// fillSlots gives every backend that is up as many slots as its weight.
func fillSlots(s *dataplane.Service) {
	s.Slots = nil
	for j, b := range s.Backends {
		if b.State == api.Up {
			s.Slots = append(s.Slots, slices.Repeat([]uint32{uint32(j)}, b.Weight)...)
		}
	}
}
