package dnsproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// Options of Compile.
type Options struct {
	// Domain of the cluster, such as weir.internal.
	Domain string
	// Aliases are domains with the same names beside it, such as mesos.
	Aliases []string
	// Listen is the address of ns.<domain>; without it the name has none.
	Listen netip.Addr
	// Programmed tells whether the kernel serves the VIPs of a service, given by
	// its key. Their names are left out until it does. nil: it serves all.
	Programmed func(service string, protocol api.Protocol) bool
	// Previous is the table before this one, if any: VIP names that it has stay,
	// as long as their service does, whatever Programmed says.
	Previous *Table
	// Up tells whether a backend is healthy. nil: all are. One that is declared
	// draining, down or of weight zero is left out either way.
	Up func(api.Service, api.Backend) bool
}

// Compile makes the table of the names that a snapshot knows. It is pure. Its
// error joins one error per name that cannot be, each naming the document.
func Compile(s *api.Snapshot, o Options) (*Table, error) {
	c := &compiler{
		builder:   &builder{names: map[string]*draft{}, pointers: map[netip.Addr]string{}},
		snapshot:  s,
		options:   o,
		published: map[string]bool{},
		named:     namedVIPs(s),
	}
	if err := c.readDomains(); err != nil {
		return nil, err
	}
	// The order decides which name an address's PTR record gives.
	for _, d := range c.domains {
		c.apex(d)
		c.nodes(d)
		c.vips(d)
		c.services(d)
	}
	c.records()
	for _, d := range c.domains {
		c.nameServer(d)
	}
	c.reverse()
	if err := errors.Join(c.errors...); err != nil {
		return nil, err
	}
	t, err := c.layOut(c.soa)
	if err != nil {
		return nil, err
	}
	t.revision, t.published = s.Revision, c.published
	return t, nil
}

type compiler struct {
	*builder
	snapshot  *api.Snapshot
	options   Options
	published map[string]bool
	named     map[string]bool
}

func (c *compiler) readDomains() error {
	for _, d := range append([]string{c.options.Domain}, c.options.Aliases...) {
		name, err := wireName(d)
		if err != nil {
			return fmt.Errorf("read domain %q: %w", d, err)
		}
		if slices.Contains(c.domains, name) {
			continue
		}
		for _, other := range c.domains {
			if strings.HasSuffix(name, other) || strings.HasSuffix(other, name) {
				return fmt.Errorf("read domain %q: it lies within %s, or that within it", d, readable(other))
			}
		}
		c.domains = append(c.domains, name)
	}
	return nil
}

// soa is the data of a domain's SOA record. The serial is the revision; the
// last number bounds negative answers.
func (c *compiler) soa(domain string) string {
	data := []byte("\x02ns" + domain + "\x0ahostmaster" + domain)
	for _, n := range []uint32{uint32(c.snapshot.Revision), 60, 10, 86400, DefaultTTL} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return string(data)
}

func (c *compiler) apex(domain string) {
	ns := "\x02ns" + domain
	c.add("the DNS proxy", domain, dns.TypeNS, DefaultTTL, ns, ns)
}

// nameServer comes last, since a node's or a record's name of the listen
// address says more than ns does, and a declared record may say who ns is.
func (c *compiler) nameServer(domain string) {
	ns := "\x02ns" + domain
	if c.options.Listen.IsValid() && len(c.node(ns).sets) == 0 {
		c.address("the DNS proxy", ns, DefaultTTL, c.options.Listen)
	}
}

// nodes adds <node>.node, and the names of all nodes of a role.
func (c *compiler) nodes(domain string) {
	for _, n := range c.snapshot.Nodes {
		owner := "node " + n.Name
		name := c.name(owner, n.Name, "node", readable(domain))
		roles := []string{"slave", "agent"}
		if n.EffectiveRole() == api.RoleController {
			roles = []string{"master", "leader"}
		}
		for _, a := range n.Addresses {
			if name != "" {
				c.address(owner, name, DefaultTTL, a)
			}
			for _, role := range roles {
				c.address("the nodes", c.name(owner, role, readable(domain)), DefaultTTL, a)
			}
		}
	}
}
