package pin

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

func TestDamageToALinkIsRepairedAndCounted(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.dir, "link-hook")
	pinned := func() link.Link {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	r.set(&r.links, "link hook false")
	for _, c := range []struct {
		name   string
		damage func() error
		want   string
	}{
		{"detached", func() error { return pinned().Detach() }, "link hook true"},
		{"pin removed", func() error { return os.Remove(path) }, "pin hook true"},
		{"program replaced", func() error { return pinned().Update(newProgram(t, 0)) }, "program hook true"},
		{"another link in its place", func() error {
			if err := os.Remove(path); err != nil {
				return err
			}
			foreign, err := r.attach(newProgram(t, 0))
			if err != nil {
				return err
			}
			defer foreign.Close() // its pin alone keeps it
			return foreign.Pin(path)
		}, "pin hook true"},
		{"no link in its place", func() error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return newProgram(t, 0).Pin(path)
		}, "pin hook true"},
	} {
		if err := c.damage(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		t.Log(c.name)
		r.set(&r.links, c.want)
	}
}

func TestTheNextProcessTakesALinkOver(t *testing.T) {
	r := newRig(t)
	r.set(&r.links, "link hook false")
	before, err := r.links.held["hook"].Info()
	if err != nil {
		t.Fatal(err)
	}
	r.links.Close()
	r.set(&r.links) // the same program
	// An upgrade has other code.
	next := Links{Dir: r.dir, Log: quiet}
	defer next.Close()
	r.program = newProgram(t, 0)
	r.set(&next, "program hook false")
	if after, err := next.held["hook"].Info(); err != nil || after.ID != before.ID {
		t.Errorf("the link is another one: %v, %v", after, err)
	}
}

func TestALinkElsewhereIsReplaced(t *testing.T) {
	r := newRig(t)
	r.set(&r.links, "link hook false")
	elsewhere := *r
	elsewhere.cgroup = newCgroup(t)
	elsewhere.set(&r.links, "link hook true")
	if ids := r.attached(); len(ids) != 0 {
		t.Errorf("the programs %v are left where the hook was", ids)
	}
	// Its cgroup is gone with it, and the pin alone is left.
	r.links.Close()
	if err := os.Remove(elsewhere.cgroup); err != nil {
		t.Fatal(err)
	}
	r.set(&r.links, "link hook false")
}

func TestAFailedAttachLeavesTheLinkThatWorks(t *testing.T) {
	r := newRig(t)
	r.set(&r.links, "link hook false")
	elsewhere := *r
	elsewhere.cgroup = newCgroup(t)
	elsewhere.program = sinktest.ForeignProgram(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, 1)
	if got, err := elsewhere.try(&r.links, "hook"); err == nil || len(got) != 0 {
		t.Errorf("a program for another hook: counted %v and %v, want an error", got, err)
	}
	r.set(&r.links)
}

func TestLinksThatAreNotWantedAreRemoved(t *testing.T) {
	r := newRig(t)
	wanted := func(name string) bool { return name == "hook" }
	for _, name := range []string{"old", "gone-new"} { // of an earlier process, or left by a crash
		earlier := Links{Dir: r.dir, Log: quiet}
		if _, err := r.try(&earlier, name); err != nil {
			t.Fatal(err)
		}
		earlier.Close()
	}
	if _, err := r.try(&r.links, "ours"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.dir, "link-ours")); err != nil {
		t.Fatal(err)
	}
	if err := newProgram(t, 0).Pin(filepath.Join(r.dir, "somebody")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try(&r.links, "hook"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.links.Keep(wanted); n != 2 || err != nil {
		t.Errorf("Keep: got %d and %v, want the 2 pins that are not wanted", n, err)
	}
	r.set(&r.links)
	if got := names(t, r.dir); !slices.Equal(got, []string{"link-hook", "somebody"}) {
		t.Errorf("the pins %v are left", got)
	}
	if n, err := r.links.Keep(wanted); n != 0 || err != nil {
		t.Errorf("the next Keep: got %d and %v", n, err)
	}
	gone := Links{Dir: filepath.Join(r.dir, "gone"), Log: quiet}
	if _, err := gone.Keep(wanted); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("Keep without a folder: got %v, want an error that names it", err)
	}
}
