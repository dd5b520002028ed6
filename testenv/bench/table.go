package bench

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv/bench/load"
)

// Limits of a table: virtual addresses in vipNet, and backends that differ.
const (
	maxServices       = 60000
	addressesInUse    = 65000 // of backendNet, each with load.PortCount ports
	maxBackends       = addressesInUse * load.PortCount
	servicePort       = 80
	usedEvery         = 128 // every so many services get TCP traffic,
	usedEveryDatagram = 64  // and these, counted from the middle, UDP traffic
)

// vipNet is the range of the virtual addresses.
var vipNet = netip.MustParsePrefix("198.18.0.0/15")

// makeTable makes services with that many backends each, all real. One service
// means one of each protocol.
func makeTable(services, backends int) dataplane.Table {
	t := dataplane.Table{Ranges: []netip.Prefix{vipNet}}
	indexes := []int{0, usedEveryDatagram}
	if services > 1 {
		indexes = make([]int, services)
		for i := range indexes {
			indexes[i] = i
		}
	}
	for place, index := range indexes {
		t.Services = append(t.Services, makeService(index, place, backends))
	}
	return t
}

func makeService(index, place, backends int) *dataplane.Service {
	s := &dataplane.Service{Protocol: api.TCP, Balance: api.Random, Frontends: []netip.AddrPort{frontend(index)}}
	if index%usedEvery == usedEveryDatagram {
		s.Protocol = api.UDP
	}
	s.Name = fmt.Sprintf("s%05d.bench/%s/4", index, s.Protocol)
	for j := range backends {
		s.Backends = append(s.Backends, dataplane.Backend{Address: backend(place*backends + j), Weight: 1, State: api.Up})
		s.Slots = append(s.Slots, uint32(j))
	}
	slices.SortFunc(s.Backends, func(a, b dataplane.Backend) int { return a.Address.Compare(b.Address) })
	return s
}

func frontend(index int) netip.AddrPort {
	n := index + 1
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), servicePort)
}

// backend n of all.
func backend(n int) netip.AddrPort {
	a := n%addressesInUse + 1
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(a >> 8), byte(a)}), uint16(load.FirstPort+n/addressesInUse))
}

// used tells whether a service gets traffic: about one in a hundred, spread
// over the whole table.
func used(index int) bool { return index%usedEveryDatagram == 0 }

// frontends that get traffic of the kind.
func frontends(t dataplane.Table, op load.Op) (all []netip.AddrPort) {
	for i, s := range t.Services {
		if s.Protocol == protocolOf(op) && (used(i) || len(t.Services) == 2) {
			all = append(all, s.Frontends...)
		}
	}
	return all
}

// directTargets are the backends of the services that get traffic of the kind,
// one of each service after the other.
func directTargets(t dataplane.Table, op load.Op) (all []netip.AddrPort) {
	reached := map[netip.AddrPort]bool{}
	for _, at := range frontends(t, op) {
		reached[at] = true
	}
	for j := range t.Services[0].Backends {
		for _, s := range t.Services {
			if reached[s.Frontends[0]] && s.Protocol == protocolOf(op) {
				all = append(all, s.Backends[j].Address)
			}
		}
	}
	return all
}

func protocolOf(op load.Op) api.Protocol {
	if isDatagram(op) {
		return api.UDP
	}
	return api.TCP
}
