package zones

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// bind adds a rule, unless it has expired.
func (v *View) bind(r boundRule, names []string) {
	if !r.Expires.IsZero() && !v.now.Before(r.Expires.Time) {
		return
	}
	from, to := v.region(r.From, r.Except.From), v.region(r.To, r.Except.To)
	if len(r.To) == 0 && len(names) == 0 {
		to = v.region([]string{api.AnyZone}, r.Except.To)
	}
	if r.section == inEgress {
		to = v.outside(r, to, names)
	}
	var ranges []api.PortRange
	for _, t := range r.Allow {
		if t.Service == "" {
			ranges = append(ranges, t.PortRange)
		}
	}
	except := portsOf(r.Except.Ports)
	if ports := portsOf(ranges).subtract(except); len(ports) > 0 {
		r.terms = append(r.terms, term{from, to, ports})
	}
	for _, t := range r.Allow {
		if t.Service != "" {
			r.terms = append(r.terms, v.serviceTerms(t.Service, from, to, except)...)
		}
	}
	v.rules = append(v.rules, r)
}

// outside is what an egress rule leads to: nothing of the fleet.
func (v *View) outside(r boundRule, to region, names []string) region {
	key := "/egress " + to.key + " " + strings.Join(names, ",")
	if len(names) > 0 {
		key += " but " + strings.Join(r.Except.To, ",")
	}
	if known, ok := v.regions[key]; ok {
		return known
	}
	var learnt []netip.Prefix
	for name, addresses := range v.state.Learnt {
		if matchesName(names, name) {
			for _, a := range addresses {
				learnt = append(learnt, host(plain(a)))
			}
		}
	}
	excepted := v.region(r.Except.To, nil)
	all := region{key, to.union(spaceOf(learnt).subtract(excepted.space)).subtract(v.inside.space)}
	v.regions[key] = all
	return all
}

// serviceTerms are the parts of a rule that allow a service: one for each port
// that it has.
func (v *View) serviceTerms(key string, from, to region, except portSpace) []term {
	byPort := map[api.PortRange][]netip.Prefix{}
	for _, s := range v.byKey[key] {
		for _, e := range v.endpoints(s, true) {
			port := api.PortRange{Protocol: string(s.EffectiveProtocol()), First: e.Port(), Last: e.Port()}
			byPort[port] = append(byPort[port], host(e.Addr()))
		}
	}
	var all []term
	for _, port := range slices.SortedFunc(maps.Keys(byPort), func(a, b api.PortRange) int { return strings.Compare(a.String(), b.String()) }) {
		ports := portsOf([]api.PortRange{port}).subtract(except)
		if len(ports) == 0 {
			continue
		}
		name := fmt.Sprintf("/service %s %s in %s", key, port, to.key)
		r, known := v.regions[name]
		if !known {
			r = region{name, spaceOf(byPort[port]).intersect(to.space)}
			v.regions[name] = r
		}
		all = append(all, term{from, r, ports})
	}
	return all
}

// matchesName tells whether one of the patterns stands for the DNS name.
func matchesName(patterns []string, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, p := range patterns {
		if below, isTree := strings.CutPrefix(p, "*"); p == name || isTree && strings.HasSuffix(name, below) && len(name) > len(below) {
			return true
		}
	}
	return false
}
