package dnsproxy

import (
	"net/netip"

	"github.com/weirproject/weir/api"
)

// serviceState is a service with what its names follow from beside it.
type serviceState struct {
	doc       *api.Service
	published bool
	// down has a byte per backend, 1 for one that fails its checks; "" when none does.
	down string
}

// serviceKey is what a service is known by.
type serviceKey struct {
	name, namespace string
	protocol        api.Protocol
}

func keyOfService(s *api.Service) serviceKey {
	return serviceKey{s.Name, s.EffectiveNamespace(), s.EffectiveProtocol()}
}

// serviceClaims are the names of a service's virtual IPs and backends.
func (c *claims) serviceClaims(s serviceState) {
	for _, d := range c.domains {
		c.vips(s, d, "vip", true)
		c.backends(s, d)
	}
	if c.options.DCOS {
		c.vips(s, dcosDirectory, "l4lb", false)
	}
}

// vips claims the names of virtual IPs: <vip>.<namespace>.vip with the address,
// and _<vip>._<tcp or udp>.<namespace>.vip with the port. The service's own name
// stands for its VIPs there too, where no VIP has it.
func (c *claims) vips(state serviceState, domain, zone string, withPorts bool) {
	s := state.doc
	ns, proto, isNamed := s.EffectiveNamespace(), s.EffectiveProtocol(), c.named[s.Key()] > 0
	mark := len(c.list)
	for _, v := range s.VIPs {
		label := v.Name
		if label == "" {
			if label = s.Name; isNamed {
				continue // the name stands for an address of its own
			}
		}
		c.as("vip "+label+"."+ns, rankVIP)
		name := c.below(domain, label, ns, zone)
		if name == "" {
			continue
		}
		c.exists(name) // with or without an address in either family
		for _, a := range c.addressesOf(s, v) {
			c.address(name, DefaultTTL, a)
		}
		if !withPorts {
			continue
		}
		srv := c.below(domain, serviceLabels(label, proto), ns, zone)
		own := c.below(domain, serviceLabels(s.Name, proto), ns, zone)
		if srv == "" || own == "" {
			continue
		}
		c.service(srv, 0, 0, v.Port, name)
		if own != srv && !isNamed {
			c.as("vip "+s.Key(), rankVIP)
			c.service(own, 0, 0, v.Port, name)
		}
	}
	if !state.published {
		c.leave(mark, "the kernel does not serve the virtual address yet")
	}
}

// addressesOf a VIP, by the allotments that the names are made with.
func (c *claims) addressesOf(s *api.Service, v api.VIP) []netip.Addr {
	return (&api.Snapshot{VIPs: c.allotted}).Addresses(*s, v)
}

// backends claims names for clients that balance by themselves:
// <service>.<namespace> with the addresses of those that are up, SRV records
// with their ports, and a name for each address, as the SRV records' target.
func (c *claims) backends(state serviceState, domain string) {
	s := state.doc
	c.as("service "+s.Key(), rankService)
	name := c.below(domain, s.Key())
	srv := c.below(domain, serviceLabels(s.Name, s.EffectiveProtocol()), s.EffectiveNamespace())
	if name == "" || srv == "" {
		return
	}
	c.exists(name) // both stay while no backend is up
	c.exists(srv)
	for i := range s.Backends {
		b := &s.Backends[i]
		why := state.whyNot(i)
		if why != "" && c.left == nil {
			continue
		}
		mark := len(c.list)
		a := b.Address.Addr().Unmap()
		target := c.below(domain, addressLabel(a), s.Key())
		if target == "" {
			continue
		}
		c.address(name, DefaultTTL, a)
		c.address(target, DefaultTTL, a)
		c.service(srv, 0, b.EffectiveWeight(), b.Address.Port(), target)
		if why != "" {
			c.leave(mark, why)
		}
	}
}

// whyNot tells why a backend is not answered; "" when it is.
func (s serviceState) whyNot(i int) string {
	b := &s.doc.Backends[i]
	switch {
	case b.State != "" && b.State != api.Up:
		return "the backend is declared " + string(b.State)
	case b.EffectiveWeight() == 0:
		return "the backend's weight is 0"
	case s.down != "" && s.down[i] == 1:
		return "the backend is not healthy"
	}
	return ""
}

// stateOf reads what a service's names follow from. A VIP's name that was
// published stays, as long as its service does.
func (n *names) stateOf(s *api.Service) serviceState {
	key, proto := s.Key(), s.EffectiveProtocol()
	state := serviceState{doc: s, published: n.services[keyOfService(s)].published || n.options.Programmed == nil}
	if !state.published {
		state.published = n.options.Programmed(key, proto)
	}
	if n.options.Up == nil {
		return state
	}
	var down []byte
	for i, b := range s.Backends {
		if b.State != "" && b.State != api.Up || b.EffectiveWeight() == 0 || n.options.Up(*s, b) {
			continue
		}
		if down == nil {
			down = make([]byte, len(s.Backends))
		}
		down[i] = 1
	}
	state.down = string(down)
	return state
}

// namedVIPs are the names of a service's VIPs, with the namespace.
func namedVIPs(s *api.Service) []string {
	var all []string
	for _, v := range s.VIPs {
		if v.Name != "" {
			all = append(all, v.Name+"."+s.EffectiveNamespace())
		}
	}
	return all
}
