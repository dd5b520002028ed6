package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// linkPrefix starts the names of our pinned links.
const linkPrefix = "link-"

// hook is a place in the kernel where one of our programs runs.
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

// setLinks makes every hook of the cgroup run our program, by a pinned link.
func (b *Balancer) setLinks(c *dataplane.Changes) error {
	var info unix.Stat_t
	if err := unix.Stat(b.options.Cgroup, &info); err != nil {
		return fmt.Errorf("attach to cgroup %s: %w", b.options.Cgroup, err)
	}
	for _, h := range hooks {
		// The id of a cgroup is its inode's number.
		if err := b.setLink(h, info.Ino, c); err != nil {
			return fmt.Errorf("attach %s to cgroup %s: %w", h.name, b.options.Cgroup, err)
		}
	}
	if !b.watching {
		return b.removeLink(watchHook, c)
	}
	if err := b.setLink(watchHook, info.Ino, c); err != nil {
		return fmt.Errorf("attach %s to cgroup %s: %w", watchHook.name, b.options.Cgroup, err)
	}
	return nil
}

// removeLink detaches what an earlier table needed.
func (b *Balancer) removeLink(h hook, c *dataplane.Changes) error {
	path := filepath.Join(b.options.PinDir, linkPrefix+h.name)
	if held := b.links[h.name]; held != nil {
		held.Close()
		delete(b.links, h.name)
	}
	n, err := removeLink(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.Removed += n
	return err
}

func (b *Balancer) setLink(h hook, cgroup uint64, c *dataplane.Changes) error {
	path := filepath.Join(b.options.PinDir, linkPrefix+h.name)
	program := b.programs.Programs[h.program]
	pinned, err := link.LoadPinnedLink(path, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("pin is no link", "path", path, "error", err)
	}
	held := b.links[h.name]
	made := held != nil
	if held != nil && pinned != nil && sameLink(held, pinned) {
		held.Close()
		held = nil
	}
	if held == nil {
		held, pinned = pinned, nil
		b.links[h.name] = held
		if held == nil {
			delete(b.links, h.name)
		} else if on(held, cgroup) {
			return b.upgrade(h, held, program, made, c)
		}
	}
	if pinned != nil {
		// Somebody's, at our place: ours will replace its pin.
		pinned.Close()
	}
	if held != nil && on(held, cgroup) {
		if err := b.upgrade(h, held, program, made, c); err != nil {
			return err
		}
	} else if held, err = b.replace(h, held, program); err != nil {
		return err
	}
	b.count(c, made, "link", h.name)
	return b.pinLink(h, held, path)
}

// replace attaches anew, where a link is missing, dead or at another cgroup.
// The old one ends after the new one works.
func (b *Balancer) replace(h hook, old link.Link, program *ebpf.Program) (link.Link, error) {
	fresh, err := link.AttachCgroup(link.CgroupOptions{Path: b.options.Cgroup, Attach: h.attach, Program: program})
	if err != nil {
		return nil, err
	}
	if old != nil {
		// Detached already when its cgroup is gone; its pin is replaced.
		_ = old.Detach()
		old.Close()
	}
	b.links[h.name] = fresh
	b.log.Info("program attached", "hook", h.name, "cgroup", b.options.Cgroup)
	return fresh, nil
}

// pinLink puts the link's pin at the path, over whatever is there, at once.
func (b *Balancer) pinLink(h hook, l link.Link, path string) error {
	temporary := path + "-new"
	// The library believes in a pin that it made, also when the file is gone.
	if err := errors.Join(l.Unpin(), removeFile(temporary)); err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	if err := l.Pin(temporary); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	renamed, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open pin: %w", err)
	}
	l.Close()
	b.links[h.name] = renamed
	return nil
}

// upgrade makes the link run this process's program, unless it runs the same
// code on the same maps. The kernel swaps them atomically.
func (b *Balancer) upgrade(h hook, l link.Link, program *ebpf.Program, made bool, c *dataplane.Changes) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if running, err := ebpf.NewProgramFromID(info.Program); err == nil {
		defer running.Close()
		if sameProgram(running, program) {
			return nil
		}
	}
	if err := l.Update(program); err != nil {
		return fmt.Errorf("replace program: %w", err)
	}
	b.count(c, made, "program", h.name)
	b.log.Info("program replaced", "hook", h.name)
	return nil
}

func sameProgram(a, b *ebpf.Program) bool {
	x, err1 := a.Info()
	y, err2 := b.Info()
	if err1 != nil || err2 != nil {
		return false
	}
	mapsX, _ := x.MapIDs()
	mapsY, _ := y.MapIDs()
	slices.Sort(mapsX)
	slices.Sort(mapsY)
	return x.Tag == y.Tag && slices.Equal(mapsX, mapsY)
}

// on tells whether the link is attached to the cgroup.
func on(l link.Link, cgroup uint64) bool {
	info, err := l.Info()
	if err != nil || info.Cgroup() == nil {
		return false
	}
	return info.Cgroup().CgroupId == cgroup
}

func sameLink(a, b link.Link) bool {
	x, err1 := a.Info()
	y, err2 := b.Info()
	return err1 == nil && err2 == nil && x.ID == y.ID
}
