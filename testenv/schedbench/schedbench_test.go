package schedbench_test

import (
	"strings"
	"testing"

	"github.com/weirproject/weir/testenv/schedbench"
)

func TestRunPlacesTheWholeFleet(t *testing.T) {
	r, err := schedbench.Run(t.Context(), schedbench.Options{Nodes: 50, Tasks: 20, Racks: 5, Rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Fleets) != 6 || len(r.Changed) != 3 {
		t.Errorf("report is %+v", r)
	}
	for _, f := range r.Fleets {
		if f.Placed != 20 || f.PerSecond <= 0 {
			t.Errorf("fleet is %+v", f)
		}
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "20 tasks on 50 nodes") {
		t.Errorf("written: %v\n%s", err, text.String())
	}
}

func TestValidateNamesTheOption(t *testing.T) {
	_, err := schedbench.Run(t.Context(), schedbench.Options{Nodes: 1, Tasks: 1, Racks: 1})
	if err == nil || !strings.Contains(err.Error(), "--rounds=0") {
		t.Errorf("error is %v", err)
	}
}
