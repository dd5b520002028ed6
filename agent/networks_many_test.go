package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// TestManyContainersOfANode also logs how long each waits for its network.
func TestManyContainersOfANode(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	uplink(t)
	n := networked(t, t.TempDir(), networksSnapshot())
	space := make([]string, 50)
	for i := range space {
		space[i], _ = containerSpace(t)
	}
	start := time.Now()
	for i := range space {
		if _, err := n.Attach(t.Context(), fmt.Sprint("t", i), space[i], []api.TaskNetwork{{Name: bridgeNetwork}}, []api.TaskPort{{Port: 80, HostPort: uint16(8000 + i)}}); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(start)
	start = time.Now()
	if c, err := n.apply(t.Context(), networksSnapshot()); err != nil || c.Repaired != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	t.Logf("%d containers attached in %s, %s each; a pass with all of them %s", len(space), took, took/time.Duration(len(space)), time.Since(start))
}
