package zones

import (
	"errors"
	"fmt"

	"github.com/weirproject/weir/api"
)

// Check runs the policy's tests. A test whose ends are zones, nodes or services
// must hold for every pair of their addresses. The error joins one
// *api.FieldError per fault, in the policy's order: for names that mean
// nothing, and for a test that fails or names nobody.
func (v *View) Check() error {
	if v.policy == nil {
		return nil
	}
	if err := checkNames(v.policy); err != nil {
		return err
	}
	var faults []error
	for i, test := range v.policy.Tests {
		if err := v.test(test); err != nil {
			faults = append(faults, fault(fmt.Sprintf("tests[%d]", i), "%v", err))
		}
	}
	return errors.Join(faults...)
}

// test runs one test.
func (v *View) test(test api.PolicyTest) error {
	from, err := v.endpoint(test.From)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := v.endpoint(test.To)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	relays, err := v.relays(test.Via)
	if err != nil {
		return err
	}
	all, err := v.judge(from, to, test.Port, relays)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Verdict == test.Expect {
			continue
		}
		why := "but no rule allows it"
		switch {
		case f.Unjudged:
			why = "but " + unjudgedReason(f.hook)
		case f.Verdict == api.Allow:
			why = fmt.Sprintf("but rule %q allows it", f.Rule)
		case f.Rule != "":
			why = "but " + v.denial([]flow{f}, nil, from, to)
		}
		return fmt.Errorf("expected %s of %s → %s %s, %s%s", test.Expect, test.From, test.To, test.Port, why, f.example(from, to))
	}
	return nil
}

// example is the pair of addresses in brackets, as far as the ends' own texts
// do not say it already.
func (f flow) example(from, to endpoint) string {
	switch {
	case !from.isAddr:
		return fmt.Sprintf(" (%s → %s)", f.from, f.to)
	case !to.isAddr:
		return fmt.Sprintf(" (%s)", f.to)
	default:
		return ""
	}
}
