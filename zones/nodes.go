package zones

import (
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// The functions below take a fleet that has nodes and nothing else, at no time:
// rules do not expire.

// Compile gives the rules that enforce the policy on the node self: see
// Compiler.
func Compile(p *api.Policy, nodes []api.Node, self api.Node) (*dataplane.Ruleset, error) {
	r, err := new(Compiler).Compile(p, State{Nodes: nodes}, Options{Self: self})
	return r.Ruleset, err
}

// Decide says what the policy means for a new flow that arrives: see
// View.Decide.
func Decide(p *api.Policy, nodes []api.Node, from, to netip.Addr, port api.PortRange) (api.Verdict, string) {
	d := Bind(p, State{Nodes: nodes}, time.Time{}).Decide(Packet{From: from, To: to, Port: port})
	return d.Verdict, d.Rule
}

// Check runs the policy's tests: see View.Check.
func Check(p *api.Policy, nodes []api.Node) error {
	return Bind(p, State{Nodes: nodes}, time.Time{}).Check()
}

// Explain says what becomes of a flow, and why: see View.Explain.
func Explain(p *api.Policy, nodes []api.Node, from, to string, port api.PortRange) (api.ZoneExplanation, error) {
	x, err := Bind(p, State{Nodes: nodes}, time.Time{}).Explain(from, to, port, ExplainOptions{})
	return x.ZoneExplanation, err
}
