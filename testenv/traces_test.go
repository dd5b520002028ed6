package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// nothingLeft looks for any trace of the labs below root: folders, cgroups,
// processes, mounts, and mount targets that no other lab needs.
func nothingLeft(t *testing.T, root string) {
	t.Helper()
	mark := filepath.Base(root)
	cgroups, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root, filepath.Join(cgroups, mark)} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	for _, pattern := range []string{"/proc/[0-9]*/cgroup", "/proc/[0-9]*/mountinfo"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err == nil && strings.Contains(string(data), mark) && !isZombie(file) {
				t.Errorf("%s mentions %s:\n%s", file, mark, data)
			}
		}
	}
	// A lab of another process may begin or end just now.
	for range 20 {
		if len(labTargets()) == 0 || mountedElsewhere(mountTargets) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("mount targets %v are left", labTargets())
}

// isZombie tells whether the process of the file in /proc has ended and waits
// for its parent, which after a crash is the machine's first process, to see.
func isZombie(file string) bool {
	pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
	if err != nil {
		return false
	}
	_, state, err := readStat(pid)
	return err != nil || state == 'Z' || state == 'X'
}

// namespacesInUse lists the namespaces that any process is in.
func namespacesInUse() map[string]bool {
	all := map[string]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/*")
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil {
			all[ns] = true
		}
	}
	return all
}

// namespacesOf lists those of the lab's hosts and wires.
func namespacesOf(t *testing.T, l *Lab) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	add := func(p process, kinds ...string) {
		for _, kind := range kinds {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind))
			if err != nil {
				t.Fatal(err)
			}
			all[ns] = true
		}
	}
	for _, h := range l.Spec.Hosts {
		p, err := l.init(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		add(p, "net", "mnt", "uts")
	}
	wires, err := readProcess(l.file("wires.pid"))
	if err != nil {
		t.Fatal(err)
	}
	add(wires, "net")
	return all
}

// machine describes the network of the machine's own namespace and its mounts.
func machine(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, command := range []string{
		"ip -o addr", "ip -o link", "ip route show table all", "ip -6 route show table all", "ip rule", "ip netns list", "nft list ruleset", "hostname",
	} {
		argv := strings.Fields(command)
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		state[command] = string(out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	state["mounts"] = string(mounts)
	return state
}

func TestMachineIsUntouchedWhileALabIsUpAndAfterwards(t *testing.T) {
	NeedNetns(t)
	o, _ := agentOptions(t)
	o.Root = testRoot(t)
	before := machine(t)
	l := ForTest(t, "", o)
	if err := l.Cut(t.Context(), "a1", "", false); err != nil {
		t.Fatal(err)
	}
	during := machine(t)
	ours := namespacesOf(t, l)
	if len(ours) != 3*len(l.Spec.Hosts)+1 {
		t.Errorf("the lab has %d namespaces, want three per host and one for the wires", len(ours))
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := machine(t)
	for what := range before {
		if before[what] != during[what] || before[what] != after[what] {
			t.Errorf("%s: before\n%s\nduring\n%s\nafter\n%s", what, before[what], during[what], after[what])
		}
	}
	used := namespacesInUse()
	for ns := range maps.Keys(ours) {
		if used[ns] {
			t.Errorf("namespace %s is left", ns)
		}
	}
	nothingLeft(t, o.Root)
}

// TestCrashedUpIsRemovedByDown kills Up after 0, 3, 6 … milliseconds, so that
// it dies in each of its steps.
func TestCrashedUpIsRemovedByDown(t *testing.T) {
	NeedNetns(t)
	o, _ := agentOptions(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	incomplete := 0
	for delay := time.Duration(0); delay < 75*time.Millisecond; delay += 3 * time.Millisecond {
		root := testRoot(t)
		t.Cleanup(func() { _, _ = DownAll(context.Background(), root) })
		up := exec.Command(self)
		up.Env = append(os.Environ(), upVariable+"="+root+":"+o.File, "TESTENV_AGENT="+o.AgentBinary, "GORACE=atexit_sleep_ms=0")
		if err := up.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		_ = up.Process.Kill()
		_ = up.Wait()
		names, err := Names(root)
		if err != nil {
			t.Fatal(err)
		}
		incomplete += len(names)
		ended, err := DownAll(t.Context(), root)
		if err != nil || len(ended) != len(names) {
			t.Errorf("down --all after %s: ended %v of %v: %v", delay, ended, names, err)
		}
		nothingLeft(t, root)
	}
	if incomplete == 0 {
		t.Error("no Up was caught while it ran")
	}
}

func TestFirstThreadStaysOutside(t *testing.T) {
	NeedNetns(t)
	before, err := os.Readlink("/proc/self/ns/uts") // the first thread's
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	for range 64 {
		group.Go(func() error {
			return onThread(func() error {
				if unix.Gettid() == os.Getpid() {
					return errors.New("on the first thread")
				}
				time.Sleep(time.Millisecond) // so that all threads have work
				return unix.Unshare(unix.CLONE_NEWUTS)
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Readlink("/proc/self/ns/uts"); after != before {
		t.Errorf("the first thread was in %s and is in %s", before, after)
	}
}
