package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// ForTest brings up a lab for the test and takes it down after it. text is the
// lab file unless o.File names one; the lab gets a name of its own, so that
// tests of many processes run side by side. It skips the test without root.
func ForTest(t testing.TB, text string, o Options) *Lab {
	t.Helper()
	NeedNetns(t)
	if o.File == "" {
		o.File = filepath.Join(t.TempDir(), "lab.yaml")
		if err := os.WriteFile(o.File, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("weir-test-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffffff)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if names, _ := Names(o.Root); !slices.Contains(names, o.Name) {
			return // Up failed and cleaned up, or the test took the lab down
		}
		if l, err := Open(o.Root, o.Name); err == nil && t.Failed() {
			l.logTo(t)
		}
		if err := Down(ctx, o.Root, o.Name); err != nil {
			t.Error(err)
		}
	})
	l, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// logTo quotes the ends of the agents' logs.
func (l *Lab) logTo(t testing.TB) {
	for _, h := range l.Spec.Hosts {
		for _, name := range h.Run {
			t.Logf("the last lines of the %s of %s:\n%s", name, h.Name, l.lastLines(h.Name, name))
		}
	}
}
