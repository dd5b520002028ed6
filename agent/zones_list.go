package agent

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

// membersShown is how many networks of a zone are listed.
const membersShown = 100

func (a *Agent) listZones(*http.Request) (any, error) {
	s, err := a.present()
	if err != nil {
		return nil, err
	}
	c := a.zones
	out := api.ZonesStatus{Mode: c.mode, Backend: c.backend(), Reason: c.why, Policy: s.Policy != nil, Pending: c.policies.waiting(), Zones: []api.ZoneMembers{}, Rules: []api.ZoneRule{}}
	if s.Policy == nil {
		return out, nil
	}
	if place := c.policies.placeOf(s.Policy); place != nil {
		out.File, out.Line = place("")
	}
	view := c.viewOf(s)
	names := make([]string, 0, len(s.Policy.Zones))
	for name := range s.Policy.Zones {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		out.Zones = append(out.Zones, membersOf(s, view, name))
	}
	out.Rules, err = c.rules(s.Policy)
	return out, err
}

func membersOf(s *api.Snapshot, view *zones.View, name string) api.ZoneMembers {
	z := api.ZoneMembers{Name: name, Networks: view.Members(name)}
	z.Size = len(z.Networks)
	for _, n := range s.Nodes {
		for _, address := range n.Addresses {
			if slices.ContainsFunc(z.Networks, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) }) {
				z.Nodes = append(z.Nodes, n.Name)
				z.Here = z.Here || n.Name == s.Node.Name
				break
			}
		}
	}
	z.Networks = z.Networks[:min(len(z.Networks), membersShown)]
	return z
}

// rules are the policy's with what they have decided here.
func (c *zonesComponent) rules(p *api.Policy) ([]api.ZoneRule, error) {
	all := []api.ZoneRule{}
	add := func(name, section string) {
		all = append(all, api.ZoneRule{Name: name, Section: section, Verdict: api.Allow})
	}
	for _, r := range p.Rules {
		add(r.Name, "rules")
	}
	for _, r := range p.Forward {
		add(r.Name, "forward")
	}
	for _, r := range p.Egress {
		add(r.Name, "egress")
	}
	if c.filter == nil {
		return all, nil
	}
	counters, err := c.filter.Counters()
	if err != nil {
		return nil, fmt.Errorf("read the rules' counters: %w", err)
	}
	for i := range all {
		n := counters[all[i].Name]
		all[i].Packets, all[i].Bytes = n.Packets, n.Bytes
		delete(counters, all[i].Name)
	}
	verdicts := verdictsOf(c.ruleset.Load())
	own := len(all)
	for name, n := range counters {
		r := api.ZoneRule{Name: name, Verdict: verdicts[name], Packets: n.Packets, Bytes: n.Bytes}
		if r.Verdict == "" {
			r.Verdict = api.Allow
		}
		all = append(all, r)
	}
	slices.SortFunc(all[own:], func(a, b api.ZoneRule) int { return slices.Compare([]string{a.Name}, []string{b.Name}) })
	return all, nil
}
