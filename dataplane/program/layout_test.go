package program

import (
	"testing"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

// The Go structs must lie in memory as the C structs do.
func TestGoStructsHaveTheLayoutOfTheCStructs(t *testing.T) {
	spec, err := bpf.LoadBalance()
	if err != nil {
		t.Fatal(err)
	}
	sinktest.CheckLayout(t, spec, map[string]any{
		"address": bpf.BalanceAddress{}, "frontend_key": bpf.BalanceFrontendKey{}, "frontend": bpf.BalanceFrontend{},
		"service": bpf.BalanceService{}, "service_name": bpf.BalanceServiceName{}, "slot_chunk": bpf.BalanceSlotChunk{},
		"backend": bpf.BalanceBackend{}, "ranges": bpf.BalanceRanges{}, "service_count": bpf.BalanceServiceCount{},
		"reason_count": bpf.BalanceReasonCount{}, "peer": bpf.BalancePeer{},
		"datagram_key": bpf.BalanceDatagramKey{}, "datagram": bpf.BalanceDatagram{},
		"affinity_key": bpf.BalanceAffinityKey{}, "affinity": bpf.BalanceAffinity{},
	})
}

func TestLoadsWithSmallVerifierEffort(t *testing.T) {
	l := newLab(t)
	b := l.open()
	sinktest.CheckVerifierEffort(t, b.programs.Programs, 20000)
}
