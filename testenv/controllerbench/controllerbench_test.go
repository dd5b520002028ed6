package controllerbench

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestEveryChangeReachesEveryNode(t *testing.T) {
	r, err := Run(t.Context(), Options{Nodes: 10, Services: 5, Backends: 3, Rate: 20, For: 2 * time.Second, Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Changes == 0 || r.Missed != 0 || r.Memory == 0 {
		t.Errorf("got %+v", r)
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "10 simulated nodes") {
		t.Errorf("got %s, %v", text.String(), err)
	}
}

func TestOptionsNameTheField(t *testing.T) {
	for field, o := range map[string]Options{
		"Nodes": {Nodes: 9999}, "Services": {Services: -1}, "Backends": {Backends: 9999}, "Rate": {Rate: -1},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
