package zones

import (
	"reflect"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

func TestCheckExample(t *testing.T) {
	if err := checked(example()); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsWhatFails(t *testing.T) {
	for _, c := range []struct{ from, to, port, expect, want string }{
		{"203.0.113.9", "private", "tcp/22", "allow", `expected allow of 203.0.113.9 → private tcp/22, but no rule allows it (10.80.0.11)`},
		{"203.0.113.9", "public", "tcp/80", "deny", `expected deny of 203.0.113.9 → public tcp/80, but rule "edge" allows it (10.80.0.31)`},
		{"203.0.113.9", "203.0.113.31", "tcp/80", "deny", `expected deny of 203.0.113.9 → 203.0.113.31 tcp/80, but rule "edge" allows it`},
		{"office", "admin", "tcp/22", "deny", `expected deny of office → admin tcp/22, but rule "ops" allows it (203.0.113.0 → 10.80.0.2)`},
		{"a2", "a1", "udp/9", "deny", `expected deny of a2 → a1 udp/9, but rule "inner" allows it (10.80.0.12 → 10.80.0.11)`},
		{"any", "private", "tcp/22", "deny", `rule "inner" allows it`},
		{"any", "public", "tcp/80", "allow", ""},
		{"office", "private", "tcp/22", "deny", `but rule "inner" allows it (203.0.113.2 → 10.80.0.11)`}, // c1's outside address
		{"203.0.113.9", "empty", "tcp/22", "deny", `to: the zone "empty" is empty: no node matches it`},
		{"empty", "private", "tcp/22", "deny", `from: the zone "empty" is empty: no node matches it`},
		{"nobody", "private", "tcp/22", "deny", `from: "nobody" is no address, zone, node or service; zones are admin, empty, office, private, public, any`},
		{"fd80::11", "office", "icmp", "deny", `fd80::11 and office have no address family in common`},
		{"a1", "private", "icmp", "allow", ""},
	} {
		p := example()
		p.Zones["empty"] = api.Zone{Nodes: &api.NodeSelector{Role: "none"}}
		p.Tests = append(p.Tests[:1], api.PolicyTest{From: c.from, To: c.to, Port: port(c.port), Expect: api.Verdict(c.expect)})
		faults := api.FieldErrors(checked(p))
		switch {
		case c.want == "" && len(faults) == 0:
		case c.want == "" || len(faults) != 1:
			t.Errorf("%s → %s: got %v, want %q", c.from, c.to, faults, c.want)
		case faults[0].Field != "tests[1]" || !strings.Contains(faults[0].Reason, c.want):
			t.Errorf("%s → %s: got %q, want it in tests[1] with %q", c.from, c.to, faults[0], c.want)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		from, to, port string
		want           api.ZoneExplanation
	}{
		{"203.0.113.3", "c1", "tcp/22", api.ZoneExplanation{
			FromZones: names("office"), ToZones: names("admin", "office"), Verdict: api.Allow, Rule: "ops", Nodes: names("c1"),
			Reason: `rule "ops" allows it`}},
		{"203.0.113.9", "private", "tcp/22", api.ZoneExplanation{
			ToZones: names("private"), Verdict: api.Deny, Nodes: names("a1", "a2"),
			Reason: "no rule allows it from outside every zone to private, and what no rule allows is closed"}},
		{"a1", "8.8.8.8", "udp/53", api.ZoneExplanation{
			FromZones: names("private"), Verdict: api.Allow, Nodes: names("a1"),
			Reason: "it leaves the fleet, and nothing is said about what may; whoever passes it on may judge it"}},
		{"9.9.9.9", "8.8.8.8", "udp/53", api.ZoneExplanation{Verdict: api.Deny,
			Reason: "no rule allows it from outside every zone to outside every zone, and what no rule allows is closed; no node has 8.8.8.8, so the nodes that pass it on judge it, and they leave alone what neither comes from a zone nor goes to one"}},
		{"office", "private", "tcp/22", api.ZoneExplanation{
			FromZones: names("office"), ToZones: names("private"), Verdict: api.Deny, Nodes: names("a1", "a2"),
			Reason: "not all of it is allowed: 203.0.113.0 → 10.80.0.11 is closed, though the rules inner allow other addresses"}},
	} {
		c.want.From, c.want.To, c.want.Port = c.from, c.to, port(c.port)
		got, err := explained(example(), c.from, c.to, port(c.port))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s → %s:\n got %+v, %v\nwant %+v", c.from, c.to, got, err, c.want)
		}
	}
	if _, err := explained(example(), "a1", "moon", port("tcp/1")); err == nil || !strings.Contains(err.Error(), `"moon" is no address, zone, node or service`) {
		t.Errorf("unknown end: got %v", err)
	}
	got, err := explained(nil, "a1", "a2", port("tcp/1"))
	if err != nil || got.Verdict != api.Allow || got.Reason != "there is no policy: everything passes" {
		t.Errorf("without a policy: got %+v, %v", got, err)
	}
}

// checked runs the policy's tests on the fleet.
func checked(p *api.Policy) error { return Bind(p, State{Nodes: fleet()}, someTime).Check() }

// explained is the flow's explanation on the fleet.
func explained(p *api.Policy, from, to string, at api.PortRange) (api.ZoneExplanation, error) {
	x, err := Bind(p, State{Nodes: fleet()}, someTime).Explain(from, to, at, ExplainOptions{})
	return x.ZoneExplanation, err
}
