package edge

import (
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// flows are TCP flows of clients from..to, by the backend at which each is.
type flows map[int]string

func (f flows) send(t *testing.T, e *Edge, from, to int, flags uint8) {
	t.Helper()
	for i := from; i < to; i++ {
		f[i] = backend(t, hooks["xdp"], e, frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: tcp, flags: flags})
	}
}

func (f flows) stay(t *testing.T, e *Edge, when string) {
	t.Helper()
	for i, at := range f {
		if got := backend(t, hooks["xdp"], e, frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: tcp}); got != at {
			t.Errorf("%s: flow %d went from %s to %s", when, i, at, got)
		}
	}
}

// forgotten is the table once it has forgotten who had the slots before.
func forgotten(s *dataplane.EdgeService) *dataplane.EdgeService {
	next := *s
	next.Previous = nil
	return &next
}

func TestAFlowOutlivesTheTablesMemoryOfTheChange(t *testing.T) {
	e, f := newEdge(t), flows{}
	before := eight(api.TCP)
	set(t, e, table(before))
	f.send(t, e, 0, 100, syn)
	after := without(before, 3, api.Draining)
	set(t, e, table(after))
	f.stay(t, e, "while the table remembers")
	f.send(t, e, 100, 200, syn)
	set(t, e, table(forgotten(after)))
	f.stay(t, e, "when it has forgotten")
	// A connection that begins now is not remembered, unless one of the same ends is.
	cached := reasons(t, e)["cached"]
	f.send(t, e, 200, 300, syn)
	f.stay(t, e, "beside new ones")
	if n := reasons(t, e)["cached"]; n != cached {
		t.Errorf("%d new connections were remembered", n-cached)
	}
	f.send(t, e, 0, 100, syn)
	for i := range 100 {
		if f[i] == "10.80.0.14:80" {
			t.Errorf("connection %d began at the draining backend", i)
		}
	}
	f.stay(t, e, "after the same ends began anew")
	// Another change, which the table forgets too, and one that makes it larger.
	next := without(forgotten(after), 5, api.Draining)
	set(t, e, table(next))
	f.stay(t, e, "after another change")
	set(t, e, table(forgotten(next)))
	f.stay(t, e, "when that is forgotten")
	large := forgotten(next)
	large.Slots = nil
	for _, b := range next.Slots {
		large.Slots = append(large.Slots, b, b)
	}
	set(t, e, table(large))
	f.stay(t, e, "in a table of twice the size")
}

// A slot that does not change in a later change keeps the previous backend that it
// had: vip's tables say so, and flows that are not remembered need it.
func TestASecondChangeKeepsThePreviousBackendsOfTheFirst(t *testing.T) {
	e, f := newEdge(t), flows{}
	before := eight(api.TCP)
	set(t, e, table(before))
	f.send(t, e, 0, 100, syn)
	first := without(before, 3, api.Draining)
	set(t, e, table(first))
	second := without(first, 5, api.Draining)
	for at := range second.Slots {
		// A slot that changes twice knows the latest previous backend alone.
		if before.Slots[at] == 3 {
			second.Slots[at], second.Previous[at] = first.Slots[at], 3
		}
	}
	set(t, e, table(second))
	f.stay(t, e, "after two changes that it did not see")
}

func TestAnAgentWithoutAPastKeepsWhatItsPredecessorKnew(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	e, f := open(t, o), flows{}
	before := eight(api.TCP)
	set(t, e, table(before))
	f.send(t, e, 0, 100, syn)
	after := without(before, 3, api.Draining)
	set(t, e, table(after))
	e.Close()
	e = open(t, o)
	if c := set(t, e, table(forgotten(after))); c != (dataplane.Changes{}) {
		t.Errorf("the new process's first Set: %+v", c)
	}
	set(t, e, table(forgotten(after)))
	f.stay(t, e, "with a new agent")
	// What changed while there was none is news to it alone.
	f = flows{}
	f.send(t, e, 100, 200, syn)
	e.Close()
	e = open(t, o)
	set(t, e, table(forgotten(without(after, 5, api.Draining))))
	f.stay(t, e, "after a change that no agent saw")
	// Five minutes later its own word is all.
	e.entries["web"].inherited = 0
	set(t, e, table(forgotten(without(after, 5, api.Draining))))
	f.stay(t, e, "after that time")
}
