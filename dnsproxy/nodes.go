package dnsproxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// node claims <node>.node, and its share in the names of all nodes of its role.
func (c *claims) node(n *api.Node) {
	roles := []string{"slave", "agent"}
	if isController(n) {
		roles = []string{"master", "leader"}
	}
	for _, d := range c.domains {
		c.as("node "+n.Name, rankNode)
		name := c.below(d, n.Name, "node")
		for _, a := range n.Addresses {
			if name != "" {
				c.address(name, DefaultTTL, a)
			}
		}
		c.as("the nodes", rankShared)
		for _, role := range roles {
			shared := c.below(d, role)
			for _, a := range n.Addresses {
				c.address(shared, DefaultTTL, a)
			}
		}
	}
}

func isController(n *api.Node) bool { return n.EffectiveRole() == api.RoleController }

// Framework is a scheduler of tasks, known by <name>.<domain>.
type Framework struct {
	Name string
	// Addresses of the scheduler.
	Addresses []netip.Addr
	// Port of its API; 0 for none.
	Port uint16
}

// fixed claims what no document says: who serves the zones, where the
// controllers' API is, schedulers, and the DC/OS names that always are.
func (c *claims) fixed(controllers []*api.Node, self *api.Node) {
	for _, apex := range c.apexes {
		c.as("the DNS proxy", rankShared)
		ns := "\x02ns" + apex
		c.add(apex, dns.TypeNS, DefaultTTL, ns)
		c.asDerived("the DNS proxy", rankShared+1) // a record's, or a node's name of the address says more
		if c.options.Listen.IsValid() {
			c.address(ns, DefaultTTL, c.options.Listen)
		}
	}
	for _, d := range c.domains {
		if c.asDerived("the nodes", rankShared); len(controllers) > 0 {
			c.service(c.below(d, "_leader._tcp"), 0, 0, c.options.controllerPort(), c.below(d, "leader"))
		}
		c.numbered(d, controllers)
		for _, f := range c.options.Frameworks {
			c.framework(d, f)
		}
	}
	if c.options.DCOS {
		c.dcosFixed(controllers, self)
	}
}

func (c *claims) framework(domain string, f Framework) {
	c.asDerived("framework "+f.Name, rankShared)
	labels := fragment(f.Name)
	if labels == "" {
		c.fail("framework %q: nothing of the name can be in a DNS name", f.Name)
		return
	}
	name, srv := c.below(domain, labels), c.below(domain, "_framework._tcp", labels)
	if name == "" || srv == "" {
		return
	}
	for _, a := range f.Addresses {
		c.address(name, DefaultTTL, a)
	}
	if f.Port > 0 {
		c.service(srv, 0, 0, f.Port, name)
	}
}

// soa is the data of a zone's SOA record. The last number bounds negative
// answers.
func soa(apex string, serial uint32) string {
	data := []byte("\x02ns" + apex + "\x0ahostmaster" + apex)
	for _, n := range []uint32{serial, 60, 10, 86400, DefaultTTL} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return string(data)
}
