// Package zones turns a policy into the rules of one node, and says what a
// policy means. It is pure: it reads no file and touches no kernel. The agent
// calls Compile and hands the result to a dataplane.Filter.
//
// Decide is the reference for what a policy means. It shares nothing with
// Compile, so that the tests can hold the two, and the kernel, against each
// other. Both speak of new flows only: what every node lets pass whatever its
// policy (replies, loopback, neighbour discovery, DHCP) is the filter's affair.
package zones

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Compile gives the rules that enforce the policy on the node self. A nil
// policy gives a nil ruleset: no rules at all, everything passes.
//
// The ruleset holds a set of every zone, since an address in any of them is
// closed for forwarded flows too, but only the rules that can decide something
// on this node: an input rule needs a destination zone with an address of this
// node, a forward rule needs one with an address of another. A rule of several
// zones becomes one filter rule per pair of them, so that the number of rules
// depends on the policy's text alone, and a new member changes one set. The
// result depends on nothing but the arguments' values.
//
// An error is about a zone or rule that the policy's Validate lets pass but
// that cannot be compiled: it joins one *api.FieldError each.
func Compile(p *api.Policy, nodes []api.Node, self api.Node) (*dataplane.Ruleset, error) {
	if p == nil {
		return nil, nil
	}
	if err := checkRules(p); err != nil {
		return nil, fmt.Errorf("compile policy: %w", err)
	}
	c := compiler{sets: map[string]dataplane.AddressSet{}, self: addresses(self)}
	for name, zone := range p.Zones {
		c.sets[name] = dataplane.AddressSet{Name: setName(name), Prefixes: merge(members(zone, nodes))}
	}
	r := &dataplane.Ruleset{}
	for _, rule := range p.Rules {
		c.add(r, rule)
	}
	for _, name := range slices.Sorted(maps.Keys(c.sets)) {
		r.Sets = append(r.Sets, c.sets[name])
	}
	slices.SortFunc(r.Sets, func(a, b dataplane.AddressSet) int { return strings.Compare(a.Name, b.Name) })
	return r, nil
}

// compiler holds what every rule of one policy needs.
type compiler struct {
	sets map[string]dataplane.AddressSet // by zone
	self []netip.Addr
}

// add appends what the rule yields on this node.
func (c compiler) add(r *dataplane.Ruleset, rule api.Rule) {
	for _, from := range distinct(rule.From) {
		if from != api.AnyZone && len(c.sets[from].Prefixes) == 0 {
			continue // nobody is there to send
		}
		for _, to := range distinct(rule.To) {
			f := dataplane.FilterRule{Name: rule.Name, From: c.setOf(from), To: c.setOf(to), Ports: rule.Allow}
			here, elsewhere := c.reach(to)
			if here {
				r.Input = append(r.Input, f)
			}
			if elsewhere {
				r.Forward = append(r.Forward, f)
			}
		}
	}
}

// setOf is the set's name for a zone, empty for any.
func (c compiler) setOf(zone string) string {
	if zone == api.AnyZone {
		return ""
	}
	return c.sets[zone].Name
}

// reach tells whether the zone has addresses of this node, and others.
func (c compiler) reach(zone string) (here, elsewhere bool) {
	if zone == api.AnyZone {
		return true, true
	}
	for _, p := range c.sets[zone].Prefixes {
		switch own := slices.ContainsFunc(c.self, p.Contains); {
		case !own:
			elsewhere = true
		case p.IsSingleIP():
			here = true
		default:
			// Somewhere in the prefix there may be another host.
			here, elsewhere = true, true
		}
	}
	return here, elsewhere
}

// distinct keeps the first of each word, or any alone where it is among them.
func distinct(zones []string) []string {
	if slices.Contains(zones, api.AnyZone) {
		return []string{api.AnyZone}
	}
	var all []string
	for _, z := range zones {
		if !slices.Contains(all, z) {
			all = append(all, z)
		}
	}
	return all
}

// reserved are the names by which filters count what no rule of the policy
// decides.
var reserved = []string{"default-deny", "invalid"}

// checkRules finds what Validate does not know about: it joins *api.FieldError.
func checkRules(p *api.Policy) error {
	var faults []error
	for i, rule := range p.Rules {
		if slices.Contains(reserved, rule.Name) {
			faults = append(faults, fault(fmt.Sprintf("rules[%d].name", i), "%q is the name of a built-in rule", rule.Name))
		}
		for j, zone := range slices.Concat(rule.From, rule.To) {
			if _, known := p.Zones[zone]; known || zone == api.AnyZone {
				continue
			}
			field := fmt.Sprintf("rules[%d].from[%d]", i, j)
			if n := len(rule.From); j >= n {
				field = fmt.Sprintf("rules[%d].to[%d]", i, j-n)
			}
			faults = append(faults, fault(field, "there is no zone %q", zone))
		}
	}
	return errors.Join(faults...)
}

// fault is an error about one field of the policy.
func fault(field, format string, args ...any) error {
	return &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
