package api

import (
	"net/netip"
	"slices"
	"strings"
)

// Policy says which zones may reach which: closed by default.
type Policy struct {
	// Zones by name: groups of nodes, of apps, or of outside networks.
	Zones map[string]Zone `json:"zones"`
	// Lists are named lists of addresses and networks. A rule may name one
	// wherever it may name a zone, but what is only in a list is in no zone.
	Lists map[string][]Network `json:"lists,omitempty"`
	// Rules allow flows. Their order decides only which of two that allow the
	// same flow counts and logs it: a flow that any rule allows passes.
	Rules []Rule `json:"rules,omitempty"`
	// Forward allows nodes to pass flows on into zones that are not routed.
	Forward []ForwardRule `json:"forward,omitempty"`
	// Egress allows flows from the fleet to the outside world: to addresses of
	// no node, app and service. Without any entry all of them are allowed.
	Egress []EgressRule `json:"egress,omitempty"`
	// Tests are flows with the verdict that the policy must give; a policy
	// that fails one is refused.
	Tests []PolicyTest `json:"tests,omitempty"`
}

// Zone is a group of nodes, of apps or of networks, or of several of these.
type Zone struct {
	// Nodes selects nodes: all their addresses are in the zone.
	Nodes *NodeSelector `json:"nodes,omitempty"`
	// Apps selects apps: the addresses of their instances are in the zone.
	Apps *AppSelector `json:"apps,omitempty"`
	// Services by name.namespace, or "*.namespace": the addresses of their
	// backends are in the zone.
	Services []string `json:"services,omitempty"`
	// CIDRs are networks that belong to the zone as a whole.
	CIDRs []netip.Prefix `json:"cidrs,omitempty"`
	// Lists are named lists whose addresses belong to the zone.
	Lists []string `json:"lists,omitempty"`
	// Whitelist names the zones, lists, services and networks that may open
	// flows to the zone, whatever the rules allow; the zone itself always may.
	// Empty: no such limit.
	Whitelist []string `json:"whitelist,omitempty"`
	// Unrouted zones are not reached through another node: no node passes flows
	// on into them, but for what Forward allows.
	Unrouted bool `json:"unrouted,omitempty"`
	// Interfaces on which the zone's addresses come in, on nodes that have one
	// of them, such as "eth1" or "bond*": elsewhere they are spoofed and dropped.
	Interfaces []string `json:"interfaces,omitempty"`
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
	return hasAll(n.Attributes, s.Attributes)
}

// AppSelector picks the apps that match everything it gives.
type AppSelector struct {
	// IDs of apps, such as "/shop/web", or "/shop/*" for all below /shop.
	IDs    []string          `json:"ids,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Matches tells whether an app with this id and these labels is selected.
func (s AppSelector) Matches(id string, labels map[string]string) bool {
	matches := func(pattern string) bool {
		below, isTree := strings.CutSuffix(pattern, "*")
		return pattern == id || isTree && strings.HasPrefix(id, below)
	}
	return (len(s.IDs) == 0 || slices.ContainsFunc(s.IDs, matches)) && hasAll(labels, s.Labels)
}

func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// Rule allows the flows from its sources to its destinations. Each of these is
// a zone, a list, a service (name.namespace: the addresses of its backends and
// its virtual ones), a network, an address, or "any".
type Rule struct {
	Name string   `json:"name"`
	From []string `json:"from"`
	// To may be left out when Allow has services only.
	To    []string  `json:"to,omitempty"`
	Allow []Traffic `json:"allow"`
	// Except is what the rule does not allow; another one may.
	Except Except `json:"except,omitzero"`
	// Log reports the flows that the rule allows.
	Log bool `json:"log,omitempty"`
	// Rate is how many new connections a second the rule allows from one source
	// address; zero means no limit.
	Rate uint32 `json:"rate,omitempty"`
	// Expires is when the rule is gone.
	Expires Time `json:"expires,omitzero"`
}

// Except takes flows out of a rule: those that match any of what it gives.
type Except struct {
	From  []string    `json:"from,omitempty"`
	To    []string    `json:"to,omitempty"`
	Ports []PortRange `json:"ports,omitempty"`
}

// ForwardRule allows nodes to pass flows on, and their destination to take
// them.
type ForwardRule struct {
	Rule
	// Via names the zones whose nodes may pass them on, or "any".
	Via []string `json:"via"`
}

// EgressRule allows flows to the outside world. Its To has no part of the
// fleet in it: "any" is every address outside.
type EgressRule struct {
	Rule
	// Names are DNS names, or "*.example.com" for all below example.com: their
	// addresses, as the node's DNS proxy gave them out, while they are valid.
	Names []string `json:"names,omitempty"`
}

// AnyZone stands for every address, in a rule's From and To.
const AnyZone = "any"

// PolicyTest is a flow and the verdict expected for it.
type PolicyTest struct {
	From   string    `json:"from"` // address, zone, node or service
	To     string    `json:"to"`   // zone, node, service or address
	Port   PortRange `json:"port"` // one port, such as tcp/22, or icmp
	Expect Verdict   `json:"expect"`
	// Via is a zone or node that passes the flow on; empty: nobody does.
	Via string `json:"via,omitempty"`
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

// Kind implements Object.
func (Policy) Kind() string { return "policy" }

// Key is the same for every policy: a fleet has one.
func (Policy) Key() string { return "policy" }
