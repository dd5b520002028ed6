package pin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/testenv"
)

// attachType is where the tests attach: it disturbs nobody, since their cgroups
// have no process.
const attachType = ebpf.AttachCGroupInet4Connect

// rig is cgroups, and the links of one process and hook.
type rig struct {
	t       *testing.T
	cgroup  string // where the hook is
	dir     string
	program *ebpf.Program
	links   Links
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testenv.NeedBPF(t)
	r := &rig{t: t, cgroup: newCgroup(t), dir: filepath.Join(sinktest.BPFFS(t), "weir"), program: newProgram(t, 1)}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.links = Links{Dir: r.dir, Log: quiet}
	t.Cleanup(func() { r.links.Close() })
	return r
}

func newCgroup(t *testing.T) string {
	t.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "weir-pin-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	return dir
}

func newProgram(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	return sinktest.ForeignProgram(t, ebpf.CGroupSockAddr, attachType, verdict)
}

func (r *rig) attach(p *ebpf.Program) (link.Link, error) {
	return link.AttachCgroup(link.CgroupOptions{Path: r.cgroup, Attach: attachType, Program: p})
}

// try sets the link and returns what was counted for it.
func (r *rig) try(links *Links, name string) (counted []string, err error) {
	r.t.Helper()
	var info unix.Stat_t
	if err := unix.Stat(r.cgroup, &info); err != nil {
		r.t.Fatal(err)
	}
	err = links.Set(name, Hook{
		Program: r.program,
		At:      func(i *link.Info) bool { return i.Cgroup() != nil && i.Cgroup().CgroupId == info.Ino },
		Attach:  func() (link.Link, error) { return r.attach(r.program) },
	}, func(repair bool, kind, name string) {
		counted = append(counted, fmt.Sprint(kind, " ", name, " ", repair))
	})
	return counted, err
}

// set wants the changes to be counted, and one program attached in the end,
// which is ours and pinned.
func (r *rig) set(links *Links, want ...string) {
	r.t.Helper()
	got, err := r.try(links, "hook")
	if err != nil || !slices.Equal(got, want) {
		r.t.Errorf("Set: counted %v and %v, want %v", got, err, want)
	}
	// The kernel ends a link that nobody has any more a little later.
	ours, ids := []ebpf.ProgramID{programID(r.t, r.program)}, r.attached()
	for end := time.Now().Add(10 * time.Second); !slices.Equal(ids, ours) && time.Now().Before(end); ids = r.attached() {
		time.Sleep(time.Millisecond)
	}
	if !slices.Equal(ids, ours) {
		r.t.Errorf("the programs %v are attached, want ours, %d", ids, ours)
	}
	pinned, err := link.LoadPinnedLink(filepath.Join(r.dir, "link-hook"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer pinned.Close()
	if !Runs(pinned, r.program) || !SameLink(pinned, links.held["hook"]) {
		r.t.Error("what is pinned is not our link")
	}
	if again, err := r.try(links, "hook"); err != nil || len(again) != 0 {
		r.t.Errorf("the next Set: counted %v and %v, want nothing", again, err)
	}
}

// attached are the ids of the programs that run at the hook.
func (r *rig) attached() (ids []ebpf.ProgramID) {
	r.t.Helper()
	f, err := os.Open(r.cgroup)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(f.Fd()), Attach: attachType})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range result.Programs {
		ids = append(ids, p.ID)
	}
	return ids
}

func programID(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}
