package program

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// hook is a place in the kernel where one of our programs runs. Its link has its
// name.
type hook struct {
	name, program string
	attach        ebpf.AttachType
}

// hooks in the order in which they are attached: what shows a virtual address
// again is there before what hides the real one.
var hooks = [...]hook{
	{"sock_release", bpf.BalanceProgWeirSockRelease, ebpf.AttachCgroupInetSockRelease},
	{"getpeername4", bpf.BalanceProgWeirGetpeername4, ebpf.AttachCgroupInet4GetPeername},
	{"getpeername6", bpf.BalanceProgWeirGetpeername6, ebpf.AttachCgroupInet6GetPeername},
	{"recvmsg4", bpf.BalanceProgWeirRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg},
	{"recvmsg6", bpf.BalanceProgWeirRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg},
	{"sendmsg4", bpf.BalanceProgWeirSendmsg4, ebpf.AttachCGroupUDP4Sendmsg},
	{"sendmsg6", bpf.BalanceProgWeirSendmsg6, ebpf.AttachCGroupUDP6Sendmsg},
	{"connect4", bpf.BalanceProgWeirConnect4, ebpf.AttachCGroupInet4Connect},
	{"connect6", bpf.BalanceProgWeirConnect6, ebpf.AttachCGroupInet6Connect},
}

// watchHook runs several times for every TCP connection, so it is attached only
// while a service is watched.
var watchHook = hook{"watch", bpf.BalanceProgWeirWatch, ebpf.AttachCGroupSockOps}

// setLinks makes every hook of the cgroup run our program, by a pinned link, and
// detaches what earlier tables and versions needed.
func (b *Balancer) setLinks(c *dataplane.Changes) error {
	needed := hooks[:]
	if b.watching {
		needed = append(needed[:len(needed):len(needed)], watchHook)
	}
	var info unix.Stat_t
	if err := unix.Stat(b.options.Cgroup, &info); err != nil {
		return fmt.Errorf("attach to cgroup %s: %w", b.options.Cgroup, err)
	}
	wanted := map[string]bool{}
	for _, h := range needed {
		wanted[h.name] = true
		// The id of a cgroup is its inode's number.
		if err := b.setLink(h, info.Ino, c); err != nil {
			return fmt.Errorf("attach %s to cgroup %s: %w", h.name, b.options.Cgroup, err)
		}
	}
	removed, err := b.links.Keep(func(name string) bool { return wanted[name] })
	c.Removed += removed
	return err
}

func (b *Balancer) setLink(h hook, cgroup uint64, c *dataplane.Changes) error {
	program := b.programs.Programs[h.program]
	return b.links.Set(h.name, pin.Hook{
		Program: program,
		At: func(i *link.Info) bool {
			at := i.Cgroup()
			return at != nil && at.CgroupId == cgroup
		},
		Attach: func() (link.Link, error) {
			return link.AttachCgroup(link.CgroupOptions{Path: b.options.Cgroup, Attach: h.attach, Program: program})
		},
	}, func(repair bool, kind, name string) { b.count(c, repair, kind, name) })
}
