package iptables

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/weirproject/weir/dataplane/filtertest"
)

var rulesets = flag.Int("rulesets", 8, "how many rulesets TestKernelAgreesWithTheEvaluator makes up")
var replaces = flag.Int("replaces", 20, "how many times TestReplacesLeaveNoWindow replaces the rules")
var policies = flag.Int("policies", 20, "how many policies TestKernelAgreesWithThePolicy makes up")

// TestMain keeps the lock of iptables out of the machine's /run.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weir-iptables-")
	if err == nil {
		err = os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "lock"))
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// variants runs a test with each variant of iptables that the host has.
func variants(t *testing.T, test func(t *testing.T, open filtertest.Open)) {
	ran := false
	for _, variant := range []string{"legacy", "nft"} {
		if _, err := exec.LookPath("iptables-" + variant); err != nil {
			continue
		}
		ran = true
		t.Run(variant, func(t *testing.T) {
			test(t, func(t testing.TB, netns int, observe bool) filtertest.Filter {
				f, err := New(Options{NetNS: netns, Observe: observe, Variant: variant})
				if err != nil {
					t.Fatal(err)
				}
				return f
			})
		})
	}
	if !ran {
		t.Skip("needs iptables")
	}
}

func TestKernelAgreesWithTheEvaluator(t *testing.T) {
	variants(t, func(t *testing.T, open filtertest.Open) { filtertest.Agree(t, open, *rulesets, 150) })
}

func TestSuite(t *testing.T) {
	variants(t, func(t *testing.T, open filtertest.Open) { filtertest.Suite(t, open) })
}

func TestReplacesLeaveNoWindow(t *testing.T) {
	variants(t, func(t *testing.T, open filtertest.Open) { filtertest.NoWindow(t, open, *replaces) })
}

func TestKernelAgreesWithThePolicy(t *testing.T) {
	variants(t, func(t *testing.T, open filtertest.Open) { filtertest.AgreeOnPolicies(t, open, *policies, 80) })
}
