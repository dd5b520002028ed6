package filtertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

// moreEnv is the variable that says how many policies to make up, for a longer
// run.
const moreEnv = "WEIR_TEST_POLICIES"

// AgreeOnPolicies makes up policies and fleets, sets in the kernel what a
// Compiler makes of them, changes the fleet and sets that too, and expects of
// each packet the verdict of zones.Decide. Of the first disagreement it looks
// for the smallest policy that shows it.
func AgreeOnPolicies(t *testing.T, open Open, policies, packets int) {
	if text := os.Getenv(moreEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", moreEnv, err)
		}
		policies = n
	}
	n := NewNet(t)
	d := &policyDiffer{t: t, net: n, filter: open(t, int(n.Node.NS), false), wire: newWire(t, n), from: time.Now()}
	sent := 0
	for seed := range uint64(policies) {
		r := &random{Rand: rand.New(rand.NewPCG(seed, 11)), net: n}
		d.random = r
		p, state := r.policy(d.from), r.fleet()
		compiler := new(zones.Compiler)
		for step := range 2 {
			var all []Packet
			for len(all) < packets {
				if k := r.packet(); !k.Invalid && !k.Delivered && k.Protocol != otherProtocol {
					all = append(all, k)
				}
			}
			sent += len(all)
			if wrong := d.wrong(compiler, p, state, all, step == 0); len(wrong) > 0 {
				d.shrink(seed, step, p, state, wrong[0])
				return
			}
			state = r.moved(state)
		}
	}
	t.Logf("%d policies, %d packets", policies, sent)
}

type policyDiffer struct {
	t      *testing.T
	net    *Net
	filter Filter
	wire   *wire
	random *random
	from   time.Time
}

// wrong gives the packets that fare otherwise than Decide says.
func (d *policyDiffer) wrong(c *zones.Compiler, p *api.Policy, s zones.State, packets []Packet, afresh bool) []Packet {
	d.t.Helper()
	d.net.Forget()
	if afresh { // nothing that an earlier policy has learnt stays
		if _, err := d.filter.Set(d.t.Context(), nil); err != nil {
			d.t.Fatal(err)
		}
	}
	made, err := c.Compile(p, s, zones.Options{Self: s.Nodes[0], Now: d.from})
	if err != nil {
		d.t.Fatalf("%v\n%s", err, policyText(p))
	}
	if _, err := d.filter.Set(d.t.Context(), made.Ruleset); err != nil {
		d.t.Fatalf("%v\n%s", err, policyText(p))
	}
	for _, set := range made.Ruleset.Dynamic {
		for name, addresses := range s.Learnt {
			if slices.Contains(set.Names, name) {
				if err := d.filter.Learn(d.t.Context(), set.Name, addresses, time.Hour); err != nil {
					d.t.Fatal(err)
				}
			}
		}
	}
	view := zones.Bind(p, s, d.from)
	want, sent := map[uint32]bool{}, map[uint32]Packet{}
	for _, k := range packets {
		number, err := d.wire.send(k)
		if err != nil {
			d.t.Fatal(err)
		}
		want[number] = view.Decide(asked(k, s.Nodes[0])).Verdict == api.Allow
		sent[number] = k
	}
	got := d.wire.passed(want)
	var out []Packet
	for number, k := range sent {
		if got[number] != want[number] {
			out = append(out, k)
		}
	}
	return out
}

// asked is the packet as zones have it.
func asked(k Packet, self api.Node) zones.Packet {
	port := api.PortRange{Protocol: "icmp"}
	switch k.Protocol {
	case unix.IPPROTO_TCP:
		port = api.PortRange{Protocol: "tcp", First: k.Port, Last: k.Port}
	case unix.IPPROTO_UDP:
		port = api.PortRange{Protocol: "udp", First: k.Port, Last: k.Port}
	}
	return zones.Packet{From: k.Source, To: k.Destination, Port: port, Hook: zones.Hook(k.Hook), Node: self}
}

// shrink takes out of the policy what the disagreement does not need.
func (d *policyDiffer) shrink(seed uint64, step int, p *api.Policy, s zones.State, k Packet) {
	still := func(p *api.Policy) bool {
		if _, err := new(zones.Compiler).Compile(p, s, zones.Options{Self: s.Nodes[0], Now: d.from}); err != nil {
			return false // a name that is not there any more
		}
		d.random.fresh(&k)
		return len(d.wrong(new(zones.Compiler), p, s, []Packet{k}, true)) > 0
	}
	if !still(p) {
		d.t.Errorf("seed %d, step %d: %+v fared otherwise than Decide says, but not when the policy is set afresh and it is sent alone:\n%s\nfleet %+v",
			seed, step, k, policyText(p), s)
		return
	}
	d.wire.patience = 100 * time.Millisecond // a packet that is waited for in vain costs this much
	for i, end := 0, time.Now().Add(time.Minute); time.Now().Before(end); {
		all := smallerPolicies(p)
		if i >= len(all) {
			break
		}
		if still(all[i]) {
			p = all[i]
		} else {
			i++
		}
	}
	verdict := zones.Bind(p, s, d.from).Decide(asked(k, s.Nodes[0]))
	d.t.Errorf("seed %d: Decide says %s by %q, the kernel does not:\npacket %+v\nfleet %+v\n%s", seed, verdict.Verdict, verdict.Rule, k, s, policyText(p))
}

// smallerPolicies gives policies with one thing less.
func smallerPolicies(p *api.Policy) []*api.Policy {
	var all []*api.Policy
	with := func(change func(*api.Policy)) {
		c := &api.Policy{}
		if data, err := json.Marshal(p); err == nil && json.Unmarshal(data, c) == nil {
			if change(c); policyText(c) != policyText(p) {
				all = append(all, c)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Zones)) {
		with(func(c *api.Policy) { delete(c.Zones, name) })
		with(func(c *api.Policy) { c.Zones[name] = api.Zone{CIDRs: c.Zones[name].CIDRs} })
		with(func(c *api.Policy) { z := c.Zones[name]; z.CIDRs = nil; c.Zones[name] = z })
	}
	rules := func(r func(*api.Policy) *api.Rule) {
		with(func(c *api.Policy) { r(c).Except = api.Except{} })
		for i := range r(p).Allow {
			with(func(c *api.Policy) { r(c).Allow = slices.Delete(r(c).Allow, i, i+1) })
		}
		for i := range r(p).From {
			with(func(c *api.Policy) { r(c).From = slices.Delete(r(c).From, i, i+1) })
		}
	}
	for i := range p.Rules {
		with(func(c *api.Policy) { c.Rules = slices.Delete(c.Rules, i, i+1) })
		rules(func(c *api.Policy) *api.Rule { return &c.Rules[i] })
	}
	for i := range p.Forward {
		with(func(c *api.Policy) { c.Forward = slices.Delete(c.Forward, i, i+1) })
		rules(func(c *api.Policy) *api.Rule { return &c.Forward[i].Rule })
	}
	for i := range p.Egress {
		if len(p.Egress) > 1 { // the last one would open all of it
			with(func(c *api.Policy) { c.Egress = slices.Delete(c.Egress, i, i+1) })
		}
		rules(func(c *api.Policy) *api.Rule { return &c.Egress[i].Rule })
	}
	return all
}

func policyText(p *api.Policy) string {
	out, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(out)
}
