package ipvs

import (
	"net/netip"

	"github.com/weirproject/weir/dataplane"
)

// Counters implements dataplane.Balancer. IPVS does not count refusals by
// service: those to empty services are counted with the unserved ports, and no
// Limited and Failures are counted. Open counts the connections in the state
// established; UDP ones are never open to IPVS.
func (b *Balancer) Counters() (dataplane.Counters, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := dataplane.Counters{Services: map[string]dataplane.ServiceCounters{}}
	err := b.kernel.list(func(v virtual, _ *service, connections uint64) error {
		name, known := b.owner[v]
		if !known {
			return nil
		}
		s := c.Services[name]
		if s.Backends == nil {
			s.Backends = map[netip.AddrPort]dataplane.BackendCounters{}
		}
		s.Connections += connections
		err := b.kernel.destinations(v, func(d destination) {
			n := s.Backends[d.at]
			n.Connections += d.connections
			n.Open += uint64(d.open)
			n.Reset += b.resets[object{v, d.at}]
			s.Backends[d.at] = n
		})
		c.Services[name] = s
		return err
	})
	if err != nil {
		return c, err
	}
	refused, err := b.guard.Counters()
	c.UnservedPorts = refused.Unserved + refused.Empty
	return c, err
}
