package nft

import (
	"flag"
	"testing"

	"github.com/weirproject/weir/dataplane/filtertest"
)

var rulesets = flag.Int("rulesets", 20, "how many rulesets TestKernelAgreesWithTheEvaluator makes up")
var replaces = flag.Int("replaces", 60, "how many times TestReplacesLeaveNoWindow replaces the rules")
var policies = flag.Int("policies", 120, "how many policies TestKernelAgreesWithThePolicy makes up")

func open(t testing.TB, netns int, observe bool) filtertest.Filter {
	o := Options{NetNS: netns}
	if observe {
		o.Mode = Observe
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestKernelAgreesWithTheEvaluator(t *testing.T) { filtertest.Agree(t, open, *rulesets, 150) }

func TestSuite(t *testing.T) { filtertest.Suite(t, open) }

func TestReplacesLeaveNoWindow(t *testing.T) { filtertest.NoWindow(t, open, *replaces) }

func TestKernelAgreesWithThePolicy(t *testing.T) {
	filtertest.AgreeOnPolicies(t, open, *policies, 80)
}
