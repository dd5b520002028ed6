package edge

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv/vm"
)

// Debian's kernel 6.1 has no TCX, and a verifier that follows less.
func TestEdgeInVM(t *testing.T) {
	// Verification takes some 15 s there for each of the loads.
	if !vm.Self(t, vm.Options{Modules: []string{"veth"}, Timeout: 5 * time.Minute}) {
		return
	}
	t.Run("loads, and refuses tcx in words", func(t *testing.T) {
		w, o := newWires(t), testOptions(t, newBPFFS(t))
		e := open(t, o)
		loadsBounded(t, e)
		t.Cleanup(func() { Cleanup(o.PinDir) })
		wanted := table(service("web", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"))
		wanted.Interfaces = map[string]dataplane.AttachMode{"e0": dataplane.AttachTCX}
		var err error
		w.in(w.edge, func() { _, err = e.Set(context.Background(), wanted) })
		if err == nil || !strings.Contains(err.Error(), "attach to e0: tcx: ") || !strings.Contains(err.Error(), "6.6") {
			t.Errorf("got %v", err)
		}
		if pins, _ := filepath.Glob(filepath.Join(o.PinDir, linkPrefix+"*")); len(pins) > 0 {
			t.Errorf("pinned are %v", pins)
		}
	})
	for _, mode := range []dataplane.AttachMode{dataplane.AttachNative, dataplane.AttachGeneric} {
		t.Run("tunnels/"+string(mode), func(t *testing.T) { packetsCross(t, mode) })
		t.Run("nat/"+string(mode), func(t *testing.T) { natServes(t, mode, 10, 1<<20) })
	}
}
