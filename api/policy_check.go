package api

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// isBuiltInRule tells names that counters and listings use for themselves.
func isBuiltInRule(name string) bool {
	switch name {
	case "default-deny", "invalid", "spoofed", "weir":
		return true
	}
	return false
}

// Validate implements Object. It checks the shape; zones.Check runs the tests
// and looks at what the names stand for.
func (p Policy) Validate() error {
	var f faults
	for _, name := range slices.Sorted(maps.Keys(p.Zones)) {
		p.checkZone(&f, name)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Lists)) {
		checkGroupName(&f, "lists."+name, name)
		if _, twice := p.Zones[name]; twice {
			f.add("lists."+name, "the name %q is a zone's", name)
		}
	}
	names := map[string]bool{}
	for i, r := range p.Rules {
		p.checkRule(&f, fmt.Sprintf("rules[%d]", i), r, names, false)
	}
	for i, r := range p.Forward {
		field := fmt.Sprintf("forward[%d]", i)
		p.checkRule(&f, field, r.Rule, names, false)
		p.checkZones(&f, field+".via", r.Via)
	}
	for i, r := range p.Egress {
		field := fmt.Sprintf("egress[%d]", i)
		p.checkRule(&f, field, r.Rule, names, len(r.Names) > 0)
		checkDNSNames(&f, field, r)
	}
	for i, t := range p.Tests {
		t.check(&f, fmt.Sprintf("tests[%d]", i))
	}
	return f.err()
}

func checkGroupName(f *faults, field, name string) {
	if name == AnyZone {
		f.add(field, "the name %q is taken: it stands for every address", AnyZone)
	} else if !isLabel(name) {
		f.add(field, "%q %s", name, labelRule)
	}
}

func checkNetworks(f *faults, field string, all []netip.Prefix) {
	for i, c := range all {
		if c.IsValid() && c != c.Masked() {
			f.add(fmt.Sprintf("%s[%d]", field, i), "%s has host bits set; did you mean %s?", c, c.Masked())
		}
	}
}

func (p Policy) checkZone(f *faults, name string) {
	z, field := p.Zones[name], "zones."+name
	checkGroupName(f, field, name)
	if z.Nodes == nil && z.Apps == nil && len(z.Services)+len(z.CIDRs)+len(z.Lists) == 0 {
		f.add(field, "has no members: give nodes, apps, services, cidrs or lists")
	}
	if s := z.Nodes; s != nil && len(s.Names) == 0 && s.Role == "" && s.Zone == "" && len(s.Attributes) == 0 {
		f.add(field+".nodes", "selects nothing: give names, role, zone or attributes")
	}
	if s := z.Apps; s != nil {
		if len(s.IDs)+len(s.Labels) == 0 {
			f.add(field+".apps", "selects nothing: give ids or labels")
		}
		for i, id := range s.IDs {
			if star := strings.IndexByte(id, '*'); !strings.HasPrefix(id, "/") || star >= 0 && !(star == len(id)-1 && strings.HasSuffix(id, "/*")) {
				f.add(fmt.Sprintf("%s.apps.ids[%d]", field, i), `%q is no id such as "/shop/web" or "/shop/*"`, id)
			}
		}
	}
	for i, s := range z.Services {
		if !IsServiceName(strings.TrimPrefix(s, "*.")) && !(strings.HasPrefix(s, "*.") && isLabel(s[2:])) {
			f.add(fmt.Sprintf("%s.services[%d]", field, i), `%q is no service such as "web.shop" or "*.shop"`, s)
		}
	}
	for i, l := range z.Lists {
		if _, known := p.Lists[l]; !known {
			f.add(fmt.Sprintf("%s.lists[%d]", field, i), "there is no list %q; lists are %s", l, words(slices.Sorted(maps.Keys(p.Lists))))
		}
	}
	for i, w := range z.Interfaces {
		if w == "" || len(w) > 15 || strings.ContainsAny(strings.TrimSuffix(w, "*"), "*/ ") {
			f.add(fmt.Sprintf("%s.interfaces[%d]", field, i), `%q is no interface such as "eth1" or "bond*"`, w)
		}
	}
	checkNetworks(f, field+".cidrs", z.CIDRs)
	p.checkEnds(f, field+".whitelist", z.Whitelist)
}

func (p Policy) checkRule(f *faults, field string, r Rule, names map[string]bool, hasNames bool) {
	if !isLabel(r.Name) {
		f.add(field+".name", "%q %s", r.Name, labelRule)
	} else if isBuiltInRule(r.Name) {
		f.add(field+".name", "%q is the name of a built-in rule", r.Name)
	} else if names[r.Name] {
		f.add(field+".name", "%q is the name of an earlier rule", r.Name)
	}
	names[r.Name] = true
	if len(r.From) == 0 {
		f.add(field+".from", `is empty: give zones, or "any"`)
	}
	ports := slices.ContainsFunc(r.Allow, func(t Traffic) bool { return t.Service == "" })
	if len(r.To) == 0 && (ports || len(r.Allow) == 0) && !hasNames {
		f.add(field+".to", `is empty: give zones, or "any"`)
	}
	if len(r.Allow) == 0 {
		f.add(field+".allow", `is empty: give ports such as "tcp/80", a service such as "web.shop", or "any"`)
	}
	p.checkEnds(f, field+".from", r.From)
	p.checkEnds(f, field+".to", r.To)
	p.checkEnds(f, field+".except.from", r.Except.From)
	p.checkEnds(f, field+".except.to", r.Except.To)
}

// checkEnds finds words that name nothing. Whether a service exists is not a
// matter of the policy.
func (p Policy) checkEnds(f *faults, field string, ends []string) {
	for i, end := range ends {
		_, isZone := p.Zones[end]
		_, isList := p.Lists[end]
		if isZone || isList || end == AnyZone || IsServiceName(end) {
			continue
		}
		field := fmt.Sprintf("%s[%d]", field, i)
		if strings.ContainsAny(end, "/:") || end != "" && end[0] >= '0' && end[0] <= '9' && strings.Contains(end, ".") {
			if _, err := ParseNetwork(end); err != nil {
				f.add(field, "%v", err)
			}
			continue
		}
		f.add(field, "there is no zone %q; zones are %s", end, p.known())
	}
}

// known lists what a rule may name.
func (p Policy) known() string {
	text := words(append(slices.Sorted(maps.Keys(p.Zones)), AnyZone))
	if len(p.Lists) > 0 {
		text += "; lists are " + words(slices.Sorted(maps.Keys(p.Lists)))
	}
	return text
}

// checkZones finds what is no zone.
func (p Policy) checkZones(f *faults, field string, zones []string) {
	if len(zones) == 0 {
		f.add(field, `is empty: give zones, or "any"`)
	}
	for i, z := range zones {
		if _, known := p.Zones[z]; !known && z != AnyZone {
			f.add(fmt.Sprintf("%s[%d]", field, i), "there is no zone %q; zones are %s", z, words(append(slices.Sorted(maps.Keys(p.Zones)), AnyZone)))
		}
	}
}

func words(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func checkDNSNames(f *faults, field string, r EgressRule) {
	for i, name := range r.Names {
		rest := strings.TrimPrefix(name, "*.")
		if !isLabel(rest) && !IsServiceName(rest) {
			f.add(fmt.Sprintf("%s.names[%d]", field, i), `%q is no DNS name such as "deb.example.com" or "*.example.com", in lower case`, name)
		}
	}
	for i, t := range r.Allow {
		if t.Service != "" {
			f.add(fmt.Sprintf("%s.allow[%d]", field, i), "%q is a service of the fleet, not outside: write ports such as tcp/443", t.Service)
		}
	}
}

func (t PolicyTest) check(f *faults, field string) {
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
