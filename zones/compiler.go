package zones

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Options of a compilation.
type Options struct {
	// Self is the node that the ruleset is for.
	Self api.Node
	// Links are its interfaces. They tell spoofed sources; without them nothing
	// is said about where addresses come in.
	Links []Link
	// Now ends rules that expire.
	Now time.Time
	// Changed names the nodes that have come, gone or changed since the last
	// call, if that is known: then the others are not looked at. They must be all
	// of them. Nil: not known.
	Changed []string
}

// Result of a Compiler.
type Result struct {
	// Ruleset is nil when there is no policy: everything passes.
	Ruleset *dataplane.Ruleset
	// Next is when to compile again though nothing has changed; zero: never.
	Next time.Time
}

// Compiler makes rulesets, one after the other, for one node. What it gives
// depends on nothing but the arguments' values (but for versions and deltas of
// sets); what it costs depends on what has changed since the last call: a new
// member changes the elements of the sets that it is in, and no rule.
//
// The zero value is ready. It is for one goroutine at a time. The arguments
// must not be changed afterwards.
type Compiler struct {
	plan    *plan
	options Options
	state   State
	rules   *dataplane.Ruleset // without sets
	uses    uses               // of the rules
	flags   []reach            // by group, of the rules
	until   time.Time          // when a rule expires next
	last    time.Time
}

// Compile gives the rules that enforce the policy on a node. A rule becomes one
// filter rule for each pair of its ends and each service, so that the number of
// rules depends on the policy's text alone; rules that can decide nothing on
// this node are left out, as are sets that no rule needs.
//
// An error is about a name that the policy's Validate refuses too; it joins one
// *api.FieldError each.
func (c *Compiler) Compile(p *api.Policy, s State, o Options) (Result, error) {
	if p == nil {
		*c = Compiler{}
		return Result{}, nil
	}
	if c.plan == nil || c.plan.policy != p && !reflect.DeepEqual(c.plan.policy, p) || !c.sameNode(o) {
		plan, err := newPlan(p, o)
		if err != nil {
			return Result{}, fmt.Errorf("compile policy: %w", err)
		}
		*c = Compiler{plan: plan}
	}
	c.plan.follow(c.state, s, o.Changed)
	c.state, c.options = s, o
	flags := c.plan.reaches()
	if c.rules == nil || !slices.Equal(flags, c.flags) || o.Now.Before(c.last) || !c.until.IsZero() && !o.Now.Before(c.until) {
		c.rules, c.until = c.plan.rules(o.Now)
		c.uses, c.flags = c.plan.usesOf(c.rules), flags
	}
	c.last = o.Now
	r := *c.rules
	c.plan.fill(&r, c.uses)
	return Result{Ruleset: &r, Next: c.until}, nil
}

func (c *Compiler) sameNode(o Options) bool {
	return reflect.DeepEqual(o.Self, c.options.Self) && reflect.DeepEqual(o.Links, c.options.Links)
}

// checkNames finds ends that name nothing: it joins *api.FieldError.
func checkNames(p *api.Policy) error {
	var faults []error
	look := func(field string, words []string) {
		for i, w := range words {
			if kind, _ := wordOf(p, w); kind == wordUnknown {
				faults = append(faults, fault(fmt.Sprintf("%s[%d]", field, i), "there is no zone %q", w))
			}
		}
	}
	rule := func(field string, r api.Rule) {
		switch r.Name {
		case dataplane.DefaultDeny, dataplane.Invalid, dataplane.Spoofed, ownRule:
			faults = append(faults, fault(field+".name", "%q is the name of a built-in rule", r.Name))
		}
		look(field+".from", r.From)
		look(field+".to", r.To)
		look(field+".except.from", r.Except.From)
		look(field+".except.to", r.Except.To)
	}
	for name, z := range p.Zones {
		look("zones."+name+".whitelist", z.Whitelist)
	}
	for i, r := range p.Rules {
		rule(fmt.Sprintf("rules[%d]", i), r)
	}
	for i, r := range p.Forward {
		rule(fmt.Sprintf("forward[%d]", i), r.Rule)
	}
	for i, r := range p.Egress {
		rule(fmt.Sprintf("egress[%d]", i), r.Rule)
	}
	return errors.Join(faults...)
}

// fault is an error about one field of the policy.
func fault(field, format string, args ...any) error {
	return &api.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
