package tracebench

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestEveryWayIsMeasured(t *testing.T) {
	testenv.NeedNetns(t)
	testenv.NeedBPF(t)
	r, err := Run(t.Context(), Options{Rounds: 2, Turn: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range r.Ways {
		if way.Connections.Ratio <= 0 || way.Bulk.Ratio <= 0 || way.ConnectionCPU.Value <= 0 || way.BulkCPU.Value <= 0 {
			t.Errorf("got %+v", way)
		}
	}
	if len(r.Ways) != 3 || r.Told == 0 {
		t.Errorf("got %+v", r)
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "| flows are watched |") {
		t.Errorf("got %v, %s", err, text.String())
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	for want, o := range map[string]Options{"rounds": {Turn: time.Second}, "turn": {Rounds: 1}} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
