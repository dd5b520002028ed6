package main

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities that the agent and the tasks that it starts may
// need for as long as they run; weir-agent.service says what for.
var kept = []int{
	unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN,
	unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE,
	unix.CAP_CHOWN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_SETPCAP,
	unix.CAP_SETFCAP, unix.CAP_MKNOD, unix.CAP_SYS_CHROOT, unix.CAP_AUDIT_WRITE, unix.CAP_SYS_RESOURCE,
}

// giveUpPrivileges leaves the process, and whatever it starts from now on,
// without every capability that is not kept; modules keeps the right to load
// kernel modules too. It needs CAP_SETPCAP, and fails with ErrUnsupported in a
// binary built with cgo, where Go does not reach every thread.
func giveUpPrivileges(modules bool) error {
	last := -1
	for c := 0; c <= 63; c++ {
		stays := modules && c == unix.CAP_SYS_MODULE
		for _, k := range kept {
			stays = stays || k == c
		}
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil { // the kernel knows no more of them
			break
		}
		last = c
		if stays || set == 0 {
			continue
		}
		if err := everyThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c)); err != nil {
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var mask [2]uint32
	for c := 0; c <= last; c++ {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && set == 1 {
			mask[c/32] |= 1 << (c % 32)
		}
	}
	for i := range data {
		data[i].Effective &= mask[i]
		data[i].Permitted &= mask[i]
		data[i].Inheritable &= mask[i]
	}
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

func everyThread(call, a, b uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(call, a, b, 0)
	if errors.Is(errno, syscall.ENOTSUP) {
		return errors.ErrUnsupported
	}
	if errno != 0 {
		return errno
	}
	return nil
}
