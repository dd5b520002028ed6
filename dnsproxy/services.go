package dnsproxy

import "github.com/weirproject/weir/api"

// vips adds the names of virtual IPs: <vip>.<namespace>.vip with the address,
// and _<vip>._<tcp or udp>.<namespace>.vip with the port. The service's own name
// stands for its VIPs there too, where no VIP has it.
func (c *compiler) vips(domain string) {
	below := func(labels, namespace, owner string) string {
		return c.name(owner, labels, namespace, "vip", readable(domain))
	}
	for _, s := range c.snapshot.Services {
		if !c.isPublished(s) {
			continue
		}
		ns, proto := s.EffectiveNamespace(), s.EffectiveProtocol()
		for _, v := range s.VIPs {
			label := v.Name
			if label == "" {
				if label = s.Name; c.named[s.Key()] {
					continue // the name stands for an address of its own
				}
			}
			owner := "vip " + label + "." + ns
			name := below(label, ns, owner)
			srv := below(serviceLabels(label, proto), ns, owner)
			own := below(serviceLabels(s.Name, proto), ns, owner)
			if name == "" || srv == "" || own == "" {
				continue
			}
			c.node(name) // exists, with or without an address in either family
			for _, a := range c.snapshot.Addresses(s, v) {
				c.address(owner, name, DefaultTTL, a)
			}
			c.service(owner, srv, 0, v.Port, name)
			if own != srv && !c.named[s.Key()] {
				c.service("vip "+s.Key(), own, 0, v.Port, name)
			}
		}
	}
}

// isPublished tells whether the names of a service's VIPs may be answered, and
// notes it for the next table.
func (c *compiler) isPublished(s api.Service) bool {
	key, proto := s.Key(), s.EffectiveProtocol()
	id := key + "/" + string(proto)
	ok := c.published[id] || c.options.Programmed == nil || c.options.Programmed(key, proto) ||
		c.options.Previous != nil && c.options.Previous.published[id]
	if ok {
		c.published[id] = true
	}
	return ok
}

// namedVIPs are the names of VIPs, with their namespaces.
func namedVIPs(s *api.Snapshot) map[string]bool {
	named := map[string]bool{}
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			if v.Name != "" {
				named[v.Name+"."+service.EffectiveNamespace()] = true
			}
		}
	}
	return named
}

// services adds the names of backends, for clients that balance by themselves:
// <service>.<namespace> with the addresses of those that are up, SRV records
// with their ports, and a name for each address, as the SRV records' target.
func (c *compiler) services(domain string) {
	for _, s := range c.snapshot.Services {
		owner := "service " + s.Key()
		name := c.name(owner, s.Key(), readable(domain))
		srv := c.name(owner, serviceLabels(s.Name, s.EffectiveProtocol()), s.EffectiveNamespace(), readable(domain))
		if name == "" || srv == "" {
			continue
		}
		c.node(name) // both stay while no backend is up
		c.node(srv)
		for _, b := range s.Backends {
			if !c.isUp(s, b) {
				continue
			}
			a := b.Address.Addr().Unmap()
			target := c.name(owner, addressLabel(a), s.Key(), readable(domain))
			if target == "" {
				continue
			}
			c.address(owner, name, DefaultTTL, a)
			c.address(owner, target, DefaultTTL, a)
			c.service(owner, srv, b.EffectiveWeight(), b.Address.Port(), target)
		}
	}
}

func (c *compiler) isUp(s api.Service, b api.Backend) bool {
	if b.State != "" && b.State != api.Up || b.EffectiveWeight() == 0 {
		return false
	}
	return c.options.Up == nil || c.options.Up(s, b)
}
