package program

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
)

// Others have programs at the same hooks of the same cgroup: a container engine,
// another load balancer. All of them run, and ours take none of theirs away.
func TestProgramsOfOthersRunBesideOurs(t *testing.T) {
	l := newLab(t)
	foreign := func() link.Link {
		t.Helper()
		other, err := link.AttachCgroup(link.CgroupOptions{
			Path:    l.cgroup,
			Attach:  ebpf.AttachCGroupInet4Connect,
			Program: sinktest.ForeignProgram(t, ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, 1),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Close() })
		return other
	}
	before := foreign()
	b := l.open()
	web := service("web/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(web)
	set(t, b, table(web))
	after := foreign()
	spread(t, l.dial("tcp", "198.18.0.10:80", 5))
	if c := set(t, b, table(web)); c != nothing {
		t.Errorf("with others attached: got %+v, want no change", c)
	}
	b.Close()
	if _, err := Cleanup(l.pins); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]link.Link{"before ours": before, "after ours": after} {
		if info, err := other.Info(); err != nil || info.Cgroup() == nil || info.Cgroup().CgroupId == 0 {
			t.Errorf("the program attached %s: %+v, %v; want it attached still", name, info, err)
		}
	}
}
