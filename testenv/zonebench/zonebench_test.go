package zonebench

import (
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

func TestRunMeasuresEveryWay(t *testing.T) {
	testenv.NeedNetns(t)
	r, err := Run(t.Context(), Options{Zones: 4, Rules: 20, Members: 50, Changes: 4, Rounds: 2, Turn: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) < 6 || r.Compile.Median == 0 || r.Apply.Median == 0 || r.Member.Median == 0 || r.MemberWrites == 0 {
		t.Errorf("got %+v, want a figure for everything", r)
	}
	for _, row := range r.Rows {
		if row.ToNode.PerSecond <= 0 || row.Through.OfOneRule <= 0 {
			t.Errorf("%s: %+v", row.Name, row)
		}
	}
	var text strings.Builder
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), reference) {
		t.Errorf("%v:\n%s", err, text.String())
	}
}

func TestOptionsNameTheFieldThatIsWrong(t *testing.T) {
	for name, o := range map[string]Options{"Zones": {Zones: 1}, "Rules": {Rules: -1}, "Members": {Members: 2_000_000}, "Turn": {Turn: -1}} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error about %s", err, name)
		}
	}
}
