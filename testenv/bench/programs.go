package bench

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// hooks of a cgroup that a balancer at connect() uses.
var hooks = []struct {
	name   string
	attach ebpf.AttachType
}{
	{"connect4", ebpf.AttachCGroupInet4Connect},
	{"connect6", ebpf.AttachCGroupInet6Connect},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg},
	{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername},
	{"getpeername6", ebpf.AttachCgroupInet6GetPeername},
	{"sock_release", ebpf.AttachCgroupInetSockRelease},
}

// attachEmpty puts a program on every hook that only lets pass.
func attachEmpty(c *client) error {
	for _, h := range hooks {
		kind := ebpf.CGroupSockAddr
		if h.attach == ebpf.AttachCgroupInetSockRelease {
			kind = ebpf.CGroupSock
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "empty", Type: kind, AttachType: h.attach, License: "Dual MIT/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
		})
		if err != nil {
			return fmt.Errorf("load an empty program for %s: %w", h.name, err)
		}
		defer p.Close()
		l, err := link.AttachCgroup(link.CgroupOptions{Path: c.cgroup, Attach: h.attach, Program: p})
		if err != nil {
			return fmt.Errorf("attach an empty program to %s: %w", h.name, err)
		}
		c.undo = append(c.undo, func() { l.Close() })
	}
	return nil
}

// attached opens the programs of the cgroup, by hook.
func attached(cgroup string) (map[string][]*ebpf.Program, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all := map[string][]*ebpf.Program{}
	// Any hook that a balancer may come to use, packets' included: that nothing
	// runs there is to be shown and not assumed.
	for attach := ebpf.AttachCGroupInetIngress; attach <= ebpf.AttachCgroupUnixGetsockname; attach++ {
		name := attach.String()
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: attach})
		if err != nil {
			continue // no hook of cgroups
		}
		for _, h := range hooks {
			if h.attach == attach {
				name = h.name
			}
		}
		for _, found := range result.Programs {
			p, err := ebpf.NewProgramFromID(found.ID)
			if err != nil {
				return all, fmt.Errorf("open program %d: %w", found.ID, err)
			}
			all[name] = append(all[name], p)
		}
	}
	return all, nil
}

func closeAll(programs map[string][]*ebpf.Program) {
	for _, list := range programs {
		for _, p := range list {
			p.Close()
		}
	}
}
