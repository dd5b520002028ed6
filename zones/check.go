package zones

import (
	"errors"
	"fmt"

	"github.com/weirproject/weir/api"
)

// Check evaluates the policy's tests against the fleet's nodes. A test whose
// ends are zones or nodes must hold for every pair of their addresses. The
// error joins one *api.FieldError per fault, in the policy's order: for a test
// that fails, that names nobody, or that Compile would refuse. A nil policy
// has no fault.
func Check(p *api.Policy, nodes []api.Node) error {
	if p == nil {
		return nil
	}
	if err := checkRules(p); err != nil {
		return err
	}
	var faults []error
	a := newAtlas(p, nodes)
	for i, test := range p.Tests {
		if err := a.check(p, test); err != nil {
			faults = append(faults, &api.FieldError{Field: fmt.Sprintf("tests[%d]", i), Reason: err.Error()})
		}
	}
	return errors.Join(faults...)
}

// check runs one test.
func (a *atlas) check(p *api.Policy, test api.PolicyTest) error {
	from, err := a.endpoint(test.From)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := a.endpoint(test.To)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	flows, err := a.flows(p, from, to, test.Port)
	if err != nil {
		return err
	}
	for _, f := range flows {
		if f.verdict == test.Expect {
			continue
		}
		why := "but no rule allows it"
		if f.verdict == api.Allow {
			why = fmt.Sprintf("but rule %q allows it", f.rule)
		}
		return fmt.Errorf("expected %s of %s → %s %s, %s%s", test.Expect, test.From, test.To, test.Port, why, f.example(from, to))
	}
	return nil
}

// example is the pair of addresses in brackets, as far as the ends' own texts
// do not say it already.
func (f flow) example(from, to endpoint) string {
	switch {
	case from.named:
		return fmt.Sprintf(" (%s → %s)", f.from, f.to)
	case to.named:
		return fmt.Sprintf(" (%s)", f.to)
	default:
		return ""
	}
}
