package trace

import (
	"testing"

	"github.com/weirproject/weir/bpf"
)

func TestTheObjectHasWhatTheCodeKnows(t *testing.T) {
	spec, err := bpf.LoadTrace()
	if err != nil {
		t.Fatal(err)
	}
	if got := spec.Maps[bpf.TraceMapDropCounts].MaxEntries; got != dropReasons {
		t.Errorf("the object has %d reasons, and we %d", got, dropReasons)
	}
	if len(spec.Programs) != len(hooks) {
		t.Errorf("the object has %d programs, and %d are attached", len(spec.Programs), len(hooks))
	}
	for _, h := range hooks {
		if spec.Programs[h.program] == nil {
			t.Errorf("the object has no program %s", h.program)
		}
	}
}
