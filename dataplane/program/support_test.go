package program

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/testenv"
)

func TestReasonsAgainstEBPFAreInWords(t *testing.T) {
	testenv.NeedBPF(t)
	if err := Supported(t.TempDir()); err == nil || !strings.Contains(err.Error(), "cgroup v2") {
		t.Errorf("not a cgroup: got %v", err)
	}
	if err := Supported("/nonexistent"); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("no cgroup: got %v", err)
	}
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "Cgroup") {
		t.Errorf("no option: got %v", err)
	}
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := Supported(root); err != nil {
		t.Errorf("here: %v", err)
	}
	b, err := New(Options{Cgroup: newCgroup(t), PinDir: filepath.Join(t.TempDir(), "weir"), Sizes: Sizes{Slots: 16}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Set(context.Background(), table()); err == nil || !strings.Contains(err.Error(), "bpffs") {
		t.Errorf("pins outside of bpffs: got %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := b.Set(context.Background(), table()); err == nil {
		t.Error("Set after Close was accepted")
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
