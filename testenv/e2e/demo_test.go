package e2e

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// TestTheDemoRunsAndLeavesTheMachineAsItWas is what make run and make stop do.
func TestTheDemoRunsAndLeavesTheMachineAsItWas(t *testing.T) {
	testenv.NeedNetns(t)
	testenv.NeedBPF(t)
	before := machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	demo := exec.CommandContext(ctx, "../../examples/demo.sh")
	demo.Env = append(os.Environ(), "WEIR_BIN="+binDir)
	if out, err := demo.CombinedOutput(); err != nil {
		t.Errorf("the demo: %v\n%s", err, out)
	}
	if out, err := run("weir-lab", "down", "demo"); err != nil {
		t.Errorf("weir-lab down demo: %v\n%s", err, out)
	}
	if after := machine(t); after != before {
		t.Errorf("the machine changed; before:\n%safter:\n%s", before, after)
	}
}

// machine is what the machine's own network, and bpffs, look like.
func machine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", "ip -o addr | sed 's/valid_lft.*//'; ip route; ip -6 route; nft list ruleset; ip netns list; ls /sys/fs/bpf").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
