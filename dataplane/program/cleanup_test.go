package program

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
)

func TestCleanupRemovesOursAndNothingElse(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(a)
	foreign, err := link.AttachCgroup(link.CgroupOptions{Path: l.cgroup, Attach: ebpf.AttachCGroupInet4Connect, Program: foreignProgram(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	b := l.open() // holds its links on: cleanup must detach them all the same
	set(t, b, table(a))
	pin := filepath.Join(l.pins, "somebody")
	if err := foreign.Pin(pin); err != nil {
		t.Fatal(err)
	}
	spread(t, l.dial("tcp", "198.18.0.10:80", 1))
	old := filepath.Join(l.pins, layoutPrefix+"0")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := Cleanup(l.pins); err != nil || n != len(hooks)+len(b.maps) {
		t.Errorf("Cleanup: got %d, %v; want %d", n, err, len(hooks)+len(b.maps))
	}
	attached := 0
	for _, h := range hooks {
		r, err := link.QueryPrograms(link.QueryOptions{Target: openCgroup(t, l.cgroup), Attach: h.attach})
		if err != nil {
			t.Fatal(err)
		}
		attached += len(r.Programs)
	}
	left, err := os.ReadDir(l.pins)
	if attached != 1 || err != nil || len(left) != 1 || left[0].Name() != "somebody" {
		t.Errorf("after cleanup: %d programs and pins %v, %v; want the foreign one", attached, left, err)
	}
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	if n, err := Cleanup(l.pins); n != 0 || err != nil {
		t.Errorf("second Cleanup: got %d, %v", n, err)
	}
	if _, err := os.Stat(l.pins); !os.IsNotExist(err) {
		t.Errorf("the empty folder is left: %v", err)
	}
	if n, err := Cleanup(l.pins); n != 0 || err != nil {
		t.Errorf("Cleanup of nothing: got %d, %v", n, err)
	}
}

func openCgroup(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}
