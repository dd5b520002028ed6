package testenv

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"

	"github.com/weirproject/weir/api"
)

var (
	// A name becomes a hostname and the name of a folder and of a cgroup. It
	// holds no dot, so that it cannot collide with the kernel's own cgroup files.
	nameSyntax = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	// A network becomes the name of an interface: IFNAMSIZ leaves 15 characters.
	networkSyntax = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
)

const (
	nameRule    = "must be 1 to 40 of a-z, 0-9 and inner hyphens"
	networkRule = "must be 1 to 15 of a-z, 0-9 and hyphens, starting with a letter, and not lo: it names the interface"
)

// checker collects the faults of a lab file.
type checker struct {
	file   labFile
	hosts  map[string]int        // index of the first host of each name
	owners map[netip.Addr]string // field that took each address
	faults []error
}

func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
}

// validate joins one *api.FieldError per fault. State must be absolute already.
func (f labFile) validate() error {
	c := checker{file: f, hosts: map[string]int{}, owners: map[netip.Addr]string{}}
	if f.Name == "" {
		c.fault("name", "is missing")
	} else if !nameSyntax.MatchString(f.Name) {
		c.fault("name", "%q %s", f.Name, nameRule)
	}
	c.networks()
	if len(f.Hosts) == 0 {
		c.fault("hosts", "is empty: give at least one host")
	}
	for i, h := range f.Hosts {
		c.host(fmt.Sprintf("hosts[%d]", i), i, h)
	}
	if f.State != "" {
		if info, err := os.Stat(f.State); err != nil || !info.IsDir() {
			c.fault("state", "%s is not a folder", f.State)
		}
	}
	return errors.Join(c.faults...)
}

func (c *checker) networks() {
	names := slices.Sorted(maps.Keys(c.file.Networks))
	for i, name := range names {
		field, prefix := "networks."+name, c.file.Networks[name]
		if !networkSyntax.MatchString(name) || name == "lo" {
			c.fault(field, "the name %q %s", name, networkRule)
		}
		if prefix != prefix.Masked() {
			c.fault(field, "%s has host bits set; the network is %s", prefix, prefix.Masked())
		}
		for _, other := range names[:i] {
			if prefix.Overlaps(c.file.Networks[other]) {
				c.fault(field, "%s overlaps network %s (%s)", prefix, other, c.file.Networks[other])
			}
		}
	}
}

func (c *checker) host(field string, index int, h hostFile) {
	if first, twice := c.hosts[h.Name]; twice {
		c.fault(field+".name", "host %q is given twice; first as hosts[%d]", h.Name, first)
	}
	c.hosts[h.Name] = index
	if h.Name == "" {
		c.fault(field+".name", "is missing")
	} else if !nameSyntax.MatchString(h.Name) {
		c.fault(field+".name", "%q %s", h.Name, nameRule)
	}
	for i, what := range h.Run {
		switch what {
		case "agent", "controller":
		default:
			c.fault(fmt.Sprintf("%s.run[%d]", field, i), "%q is neither agent nor controller", what)
		}
	}
	if h.Zone != "" && !nameSyntax.MatchString(h.Zone) {
		c.fault(field+".zone", "%q %s", h.Zone, nameRule)
	}
	if h.Role != "" && !nameSyntax.MatchString(h.Role) {
		c.fault(field+".role", "%q %s", h.Role, nameRule)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Networks)) {
		c.addresses(field+".networks."+name, name, h.Networks[name])
	}
	if h.role() != "" && len(h.Networks) == 0 {
		c.fault(field+".networks", "is missing: a node needs an address")
	}
	c.gateway(field+".gateway", h)
}

func (c *checker) addresses(field, network string, addresses []netip.Addr) {
	prefix, known := c.file.Networks[network]
	if !known {
		c.fault(field, "network %q is not among the lab's networks %v", network, slices.Sorted(maps.Keys(c.file.Networks)))
		return
	}
	if len(addresses) == 0 {
		c.fault(field, "is empty: give the host's address in %s", prefix)
	}
	for i, a := range addresses {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !prefix.Contains(a):
			c.fault(at, "%s is outside of network %s (%s)", a, network, prefix)
		case prefix.Bits() < a.BitLen()-1 && a == prefix.Addr():
			c.fault(at, "%s is the address of the network itself", a)
		case a.Is4() && prefix.Bits() < 31 && !prefix.Contains(a.Next()):
			c.fault(at, "%s is the broadcast address of the network", a)
		}
		if owner, taken := c.owners[a]; taken {
			c.fault(at, "%s is taken already by %s", a, owner)
		}
		c.owners[a] = field
	}
}

func (c *checker) gateway(field string, h hostFile) {
	seen := map[bool]bool{} // by "is IPv4"
	for i, gateway := range h.Gateway {
		at := fmt.Sprintf("%s[%d]", field, i)
		reachable := false
		for network, own := range h.Networks {
			reachable = reachable || c.file.Networks[network].Contains(gateway) && !slices.Contains(own, gateway)
		}
		if !reachable {
			c.fault(at, "%s is no other host in the networks of this one", gateway)
		}
		if seen[gateway.Is4()] {
			c.fault(at, "%s is the second gateway of its address family", gateway)
		}
		seen[gateway.Is4()] = true
	}
}
