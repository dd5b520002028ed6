package deliver

import (
	"testing"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

// The Go structs must lie in memory as the C structs do.
func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadDeliver()
	if err != nil {
		t.Fatal(err)
	}
	sinktest.CheckLayout(t, spec, map[string]any{
		"config": bpf.DeliverConfig{}, "tunnel_end": bpf.DeliverTunnelEnd{}, "target": bpf.DeliverTarget{},
		"flow_key": bpf.DeliverFlowKey{}, "flow": bpf.DeliverFlow{}, "count": bpf.DeliverCount{},
		"fragment_key": bpf.DeliverFragmentKey{}, "fragment": bpf.DeliverFragment{},
	})
}

func TestLoadsWithSmallVerifierEffort(t *testing.T) {
	sinktest.CheckVerifierEffort(t, sharedDeliverer(t).programs.Programs, 50000)
}

func TestEveryDropHasAName(t *testing.T) {
	for fate := bpf.DeliverFateFATE_NO_EDGE; fate < bpf.DeliverFateFATE_MAX; fate++ {
		if drops[fate] == "" {
			t.Errorf("fate %d has no name", fate)
		}
	}
}

func TestThePortIsThatOfTheTunnels(t *testing.T) {
	if dataplane.GUEPort != 6080 {
		t.Errorf("GUE_PORT in bpf/deliver_tunnel.h is 6080, dataplane.GUEPort is %d", dataplane.GUEPort)
	}
}
