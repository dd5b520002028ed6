package agent

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/weirproject/weir/api"
)

func TestTheHistoryKeepsTheLastPoliciesAndWhatIsInForce(t *testing.T) {
	a := &Agent{config: Config{DataDir: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	p := newPolicies(a)
	p.add(historyEntry{Text: "first"}, api.ChangeInForce)
	for i := range 2 * historyLength {
		p.add(historyEntry{Text: fmt.Sprint(i)}, api.ChangeRolledBack)
	}
	for _, p := range []*policies{p, newPolicies(a)} { // a restart forgets nothing
		if n := len(p.history); n != historyLength || p.inForce() != 0 || p.history[0].Text != "first" || p.history[n-1].ID != 2*historyLength+1 {
			t.Errorf("%d entries, from %+v to %+v", n, p.history[0], p.history[n-1])
		}
		if _, err := p.entry(2); err == nil {
			t.Error("an old entry is kept")
		}
	}
}
