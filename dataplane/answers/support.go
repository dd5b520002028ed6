package answers

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane/internal/pin"
)

// nobody is the index of an interface that no namespace has.
const nobody = 0x7fffffff

// Supported says why this kernel cannot answer, or nil. It changes nothing.
func Supported() error {
	if err := pin.Available(); err != nil {
		return err
	}
	err := features.HaveProgramHelper(ebpf.SchedCLS, asm.FnKtimeGetCoarseNs)
	if err == nil {
		err = probeTCX()
	}
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("the kernel is too old or built without it: it lacks TCX (Linux 6.6): %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("eBPF is not allowed here: it takes root, or CAP_BPF and CAP_NET_ADMIN: %w", err)
	case err != nil:
		return fmt.Errorf("probe for TCX: %w", err)
	}
	return nil
}

// probeTCX attaches to nothing: a kernel with TCX says that there is no such
// interface, and for one without it the library gives ErrNotSupported.
func probeTCX() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: nobody, Program: p, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		l.Close()
		return nil
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
