package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// defaultCapabilities are what people's images expect: those of Docker.
var defaultCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

var allCapabilities = slices.Concat(defaultCapabilities, []string{
	"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_NET_BROADCAST",
	"CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE",
	"CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM",
})

// capabilities of a container. A user other than root may get them by programs
// with capabilities of their own, but does not begin with them.
func capabilities(c *api.ContainerSpec, root bool) (*specs.LinuxCapabilities, error) {
	have := slices.Clone(defaultCapabilities)
	if c.Privileged {
		have = slices.Clone(allCapabilities)
	}
	drop, err := capabilityNames("container.drop_capabilities", c.DropCapabilities)
	if err != nil {
		return nil, err
	}
	add, err := capabilityNames("container.add_capabilities", c.AddCapabilities)
	if err != nil {
		return nil, err
	}
	have = slices.DeleteFunc(have, func(name string) bool { return slices.Contains(drop, name) })
	have = append(have, add...)
	slices.Sort(have)
	have = slices.Compact(have)
	set := &specs.LinuxCapabilities{Bounding: have}
	if root {
		set.Effective, set.Permitted = have, have
	}
	return set, nil
}

func capabilityNames(field string, names []string) ([]string, error) {
	var all []string
	for i, name := range names {
		if strings.EqualFold(name, "all") {
			return allCapabilities, nil
		}
		full := "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !slices.Contains(allCapabilities, full) {
			return nil, fmt.Errorf("%s[%d]: there is no capability %q", field, i, name)
		}
		all = append(all, full)
	}
	return all, nil
}

// refused are the system calls that a container may not make, with the
// capability that allows them again; empty: none does. They reach behind its
// namespaces, change the node as a whole, or have had more holes than users.
var refused = []struct {
	capability string
	calls      []string
}{
	{"", []string{
		"add_key", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "nfsservctl", "query_module",
		"request_key", "sysfs", "_sysctl", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
	}},
	{"CAP_SYS_ADMIN", []string{
		"bpf", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "open_tree",
		"perf_event_open", "pivot_root", "quotactl", "quotactl_fd", "setns", "swapoff", "swapon", "umount", "umount2", "unshare",
	}},
	{"CAP_SYS_MODULE", []string{"create_module", "delete_module", "finit_module", "init_module"}},
	{"CAP_SYS_BOOT", []string{"kexec_file_load", "kexec_load", "reboot"}},
	{"CAP_SYS_TIME", []string{"clock_adjtime", "clock_settime", "settimeofday", "stime"}},
	{"CAP_SYS_RAWIO", []string{"ioperm", "iopl"}},
	{"CAP_SYS_PTRACE", []string{"kcmp", "process_madvise", "process_vm_readv", "process_vm_writev"}},
	{"CAP_SYS_NICE", []string{"mbind", "move_pages", "set_mempolicy"}},
	{"CAP_SYS_PACCT", []string{"acct"}},
	{"CAP_DAC_READ_SEARCH", []string{"open_by_handle_at"}},
}

// newNamespaces are the flags of clone that make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// seccomp lets all calls pass but those that are refused.
func seccomp(have []string) *specs.LinuxSeccomp {
	denied, unknown := uint(unix.EPERM), uint(unix.ENOSYS)
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: architectures()}
	for _, r := range refused {
		if r.capability == "" || !slices.Contains(have, r.capability) {
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: r.calls, Action: specs.ActErrno, ErrnoRet: &denied})
		}
	}
	if slices.Contains(have, "CAP_SYS_ADMIN") {
		return s
	}
	for bit := uint64(1); bit <= newNamespaces; bit <<= 1 {
		if newNamespaces&bit != 0 {
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{
				Names: []string{"clone"}, Action: specs.ActErrno, ErrnoRet: &denied,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: bit, ValueTwo: bit, Op: specs.OpMaskedEqual}},
			})
		}
	}
	// Its flags are behind a pointer, where no filter looks; libc falls back to
	// clone when it is told that the kernel has no such call.
	s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &unknown})
	return s
}
