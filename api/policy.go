package api

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Policy says which zones may reach which: closed by default.
type Policy struct {
	// Zones by name: groups of nodes or of outside networks.
	Zones map[string]Zone `json:"zones"`
	// Rules allow flows. Their order has no meaning: a flow that any rule
	// allows passes.
	Rules []Rule `json:"rules,omitempty"`
	// Tests are flows with the verdict that the policy must give; a policy
	// that fails one is refused.
	Tests []PolicyTest `json:"tests,omitempty"`
}

// Zone is a group of nodes or of networks. A zone may have both.
type Zone struct {
	Nodes *NodeSelector  `json:"nodes,omitempty"`
	CIDRs []netip.Prefix `json:"cidrs,omitempty"`
}

// NodeSelector picks the nodes that match everything it gives.
type NodeSelector struct {
	Names      []string          `json:"names,omitempty"`
	Role       string            `json:"role,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Matches tells whether the node has everything that the selector gives.
func (s NodeSelector) Matches(n Node) bool {
	if len(s.Names) > 0 && !slices.Contains(s.Names, n.Name) {
		return false
	}
	if s.Role != "" && s.Role != n.EffectiveRole() || s.Zone != "" && s.Zone != n.Zone {
		return false
	}
	for k, v := range s.Attributes {
		if n.Attributes[k] != v {
			return false
		}
	}
	return true
}

// Rule allows the flows from its zones to its zones.
type Rule struct {
	Name  string      `json:"name"`
	From  []string    `json:"from"` // zones, or "any"
	To    []string    `json:"to"`   // zones, or "any"
	Allow []PortRange `json:"allow"`
}

// AnyZone stands for every address, in a rule's From and To.
const AnyZone = "any"

// PolicyTest is a flow and the verdict expected for it.
type PolicyTest struct {
	From   string    `json:"from"` // address, zone or node
	To     string    `json:"to"`   // zone, node or address
	Port   PortRange `json:"port"` // one port, such as tcp/22, or icmp
	Expect Verdict   `json:"expect"`
}

// Verdict is what a policy says of a flow.
type Verdict string

// The verdicts.
const (
	Allow Verdict = "allow"
	Deny  Verdict = "deny"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Verdict) UnmarshalText(b []byte) error { return oneOf(v, b, Allow, Deny) }

// PortRange is a protocol with its ports: tcp/80, udp/8000-8100, icmp or any.
// ICMP covers ICMPv6 too.
type PortRange struct {
	Protocol    string // tcp, udp, icmp, or any
	First, Last uint16 // both zero: every port
}

// ParsePortRange reads "tcp/80", "tcp/8000-8100", "tcp", "udp/53", "icmp", "any".
func ParsePortRange(s string) (PortRange, error) {
	proto, ports, hasPorts := strings.Cut(s, "/")
	bad := fmt.Errorf(`%q is not one of "tcp/80", "tcp/8000-8100", "udp/53", "tcp", "udp", "icmp", "any"`, s)
	switch proto {
	case "tcp", "udp":
	case "icmp", "any":
		if hasPorts {
			return PortRange{}, bad
		}
	default:
		return PortRange{}, bad
	}
	r := PortRange{Protocol: proto}
	if !hasPorts {
		return r, nil
	}
	first, last, isRange := strings.Cut(ports, "-")
	if !isRange {
		last = first
	}
	a, err1 := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || b < a {
		return PortRange{}, bad
	}
	r.First, r.Last = uint16(a), uint16(b)
	return r, nil
}

func (r PortRange) String() string {
	switch {
	case r.First == 0 && r.Last == 0:
		return r.Protocol
	case r.First == r.Last:
		return fmt.Sprintf("%s/%d", r.Protocol, r.First)
	default:
		return fmt.Sprintf("%s/%d-%d", r.Protocol, r.First, r.Last)
	}
}

// MarshalText implements encoding.TextMarshaler.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *PortRange) UnmarshalText(b []byte) (err error) {
	*r, err = ParsePortRange(string(b))
	return err
}

// builtInRules are names that counters and listings use for themselves.
var builtInRules = []string{"default-deny", "invalid"}

// Kind implements Object.
func (Policy) Kind() string { return "policy" }

// Key is the same for every policy: a fleet has one.
func (Policy) Key() string { return "policy" }

// Validate implements Object. It checks the shape; zones.Check runs the tests.
func (p Policy) Validate() error {
	var f faults
	for _, name := range slices.Sorted(maps.Keys(p.Zones)) {
		z, field := p.Zones[name], "zones."+name
		if name == AnyZone {
			f.add(field, "the name %q is taken: it stands for every address", AnyZone)
		} else if !isLabel(name) {
			f.add(field, "%q %s", name, labelRule)
		}
		if z.Nodes == nil && len(z.CIDRs) == 0 {
			f.add(field, "has neither nodes nor cidrs")
		}
		if s := z.Nodes; s != nil && len(s.Names) == 0 && s.Role == "" && s.Zone == "" && len(s.Attributes) == 0 {
			f.add(field+".nodes", "selects nothing: give names, role, zone or attributes")
		}
		for i, c := range z.CIDRs {
			if c.IsValid() && c != c.Masked() {
				f.add(fmt.Sprintf("%s.cidrs[%d]", field, i), "%s has host bits set; did you mean %s?", c, c.Masked())
			}
		}
	}
	names := map[string]bool{}
	for i, r := range p.Rules {
		field := fmt.Sprintf("rules[%d]", i)
		if !isLabel(r.Name) {
			f.add(field+".name", "%q %s", r.Name, labelRule)
		} else if slices.Contains(builtInRules, r.Name) {
			f.add(field+".name", "%q is the name of a built-in rule", r.Name)
		} else if names[r.Name] {
			f.add(field+".name", "%q is the name of an earlier rule", r.Name)
		}
		names[r.Name] = true
		p.checkZones(&f, field+".from", r.From)
		p.checkZones(&f, field+".to", r.To)
		if len(r.Allow) == 0 {
			f.add(field+".allow", `is empty: give ports such as "tcp/80", or "any"`)
		}
	}
	for i, t := range p.Tests {
		field := fmt.Sprintf("tests[%d]", i)
		if t.From == "" {
			f.add(field+".from", "is missing")
		}
		if t.To == "" {
			f.add(field+".to", "is missing")
		}
		if t.Port.Protocol == "" || t.Port.Protocol == "any" || t.Port.First != t.Port.Last || (t.Port.First == 0 && t.Port.Protocol != "icmp") {
			f.add(field+".port", `%q is not one port: give one such as "tcp/22", or "icmp"`, t.Port)
		}
		if t.Expect == "" {
			f.add(field+".expect", "is missing: give allow or deny")
		}
	}
	return f.err()
}

func (p Policy) checkZones(f *faults, field string, zones []string) {
	if len(zones) == 0 {
		f.add(field, `is empty: give zones, or "any"`)
	}
	for i, z := range zones {
		if _, known := p.Zones[z]; !known && z != AnyZone {
			f.add(fmt.Sprintf("%s[%d]", field, i), "there is no zone %q; zones are %s", z,
				strings.Join(append(slices.Sorted(maps.Keys(p.Zones)), AnyZone), ", "))
		}
	}
}
