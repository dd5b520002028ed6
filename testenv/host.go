package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// boot starts a host without its daemons: its folders, its cgroup, the process
// that keeps its namespaces, and its links.
func (l *Lab) boot(ctx context.Context, index int) error {
	h := l.Spec.Hosts[index]
	if err := l.writeDisk(h); err != nil {
		return err
	}
	unlock, err := lockTargets(ctx, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	if err := makeTargets(); err != nil {
		return err
	}
	v := view{disk: l.disk(h.Name), state: l.Spec.State}
	if l.Spec.Joined() {
		v.state = "" // the controllers have it
	}
	err = l.keep(h.Name, l.disk(h.Name, "init.pid"), func() error {
		if err := unix.Unshare(unix.CLONE_FS | hostNamespaces); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
		if err := unix.Sethostname([]byte(h.Name)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		if err := v.mount(); err != nil {
			return err
		}
		return prepareNetwork()
	})
	if err != nil {
		return err
	}
	return l.connect(index)
}

// keep starts the process that keeps the namespaces which prepare makes for
// the calling thread, in the cgroup of that name, and records it in the file.
// Sleep does: it needs nothing, ends by any signal, and is on every machine.
func (l *Lab) keep(cgroup, file string, prepare func() error) error {
	if err := l.createCgroup(cgroup); err != nil {
		return err
	}
	cmd := exec.Command("sleep", "infinity")
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of the terminal's ^C
	if err := startIn(cmd, l.hostCgroup(cgroup), prepare); err != nil {
		return err
	}
	return l.adopt(cmd, file)
}

// adopt records the started command in the file and reaps it when it ends,
// which is when its host ends or, for an agent, when it dies.
func (l *Lab) adopt(cmd *exec.Cmd, file string) error {
	p, err := newProcess(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p.save(file)
}

// prepareNetwork makes the thread's new network namespace ready for links: lo
// is up, and addresses work at once instead of after duplicate detection.
func prepareNetwork() error {
	for _, key := range []string{"accept_dad", "dad_transmits"} {
		for _, which := range []string{"all", "default"} {
			err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/"+key, []byte("0"), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return handle.LinkSetUp(lo)
}

// init is the process that keeps the host's namespaces.
func (l *Lab) init(host string) (process, error) {
	if _, err := l.host(host); err != nil {
		return process{}, err
	}
	p, err := readProcess(l.disk(host, "init.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return process{}, err
	}
	if !p.alive() || !inCgroup(l.hostCgroup(host), p.pid) {
		return process{}, fmt.Errorf("host %s of lab %q is off: run weir-lab start %s", host, l.Spec.Name, host)
	}
	return p, nil
}

// powerOff ends every process of the host and takes its links down. Its disk
// stays.
func (l *Lab) powerOff(ctx context.Context, index int) error {
	host := l.Spec.Hosts[index].Name
	// The wires first: who loses power says no farewell on its connections.
	if err := l.disconnect(index); err != nil {
		return err
	}
	if err := killCgroup(ctx, l.hostCgroup(host)); err != nil {
		return err
	}
	// Cgroups that the host's processes made are no disk: they go too.
	return removeCgroup(l.hostCgroup(host))
}
