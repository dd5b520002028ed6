package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
)

// resetter ends the sockets whose backend is down or gone.
type resetter struct {
	log      *slog.Logger
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection
	// iterators over the sockets of a network namespace; none where the kernel
	// cannot end sockets from there, and sock_diag has to do.
	iterators []*link.Iter
	// lost are the ids of backends that are down or gone. A gone one is dropped
	// once no socket is left and everything was read back again.
	lost map[uint32]bool
}

// init makes the iterators; where it cannot, sock_diag takes their place.
func (r *resetter) init(maps map[string]*ebpf.Map, log *slog.Logger) {
	r.maps, r.log = maps, log
	if r.lost == nil {
		r.lost = map[uint32]bool{}
	}
	if err := r.loadIterators(); err != nil {
		r.close()
		r.log.Info("sockets of lost backends are ended by sock_diag", "reason", err)
	}
}

func (r *resetter) loadIterators() error {
	spec, err := bpf.LoadReset()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	needed := map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		s.MaxEntries = r.maps[name].MaxEntries()
		needed[name] = r.maps[name]
	}
	if r.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: needed}); err != nil {
		return fmt.Errorf("load the socket iterators (Linux 6.5): %w", err)
	}
	for _, name := range []string{bpf.ResetProgWeirResetTcp, bpf.ResetProgWeirResetUdp} {
		it, err := link.AttachIter(link.IterOptions{Program: r.programs.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach the socket iterator %s: %w", name, err)
		}
		r.iterators = append(r.iterators, it)
	}
	return nil
}

func (r *resetter) close() error {
	var faults []error
	for _, it := range r.iterators {
		faults = append(faults, it.Close())
	}
	r.iterators = nil
	if r.programs != nil {
		r.programs.Close()
		r.programs = nil
	}
	return errors.Join(faults...)
}

// resetSockets ends what the lost backends have left open. A socket that
// connected in the moment of the change is found by the next pass. Failures are
// told and tried again then: the table is in the kernel all the same.
func (b *Balancer) resetSockets(p *pass) {
	open := false
	for id := range b.reset.lost {
		cell := &b.cells.backends[id]
		switch state := atomic.LoadUint32((*uint32)(&cell.State)); {
		case state >= uint32(bpf.BalanceBackendStateBACKEND_DRAINING):
			delete(b.reset.lost, id)
		case b.cells.counters(id).Open > 0:
			open = true
		case p.verify && state == uint32(stateAbsent):
			delete(b.reset.lost, id)
		}
	}
	if !open {
		return
	}
	before := b.resets()
	if err := b.inNamespaces(b.endSockets); err != nil {
		b.log.Warn("sockets of lost backends are not all ended", "error", err)
	}
	b.log.Info("sockets of lost backends ended", "sockets", b.resets()-before)
}

// resets counts the ended sockets of the lost backends.
func (b *Balancer) resets() (sum uint64) {
	for id := range b.reset.lost {
		sum += atomic.LoadUint64(&b.cells.backends[id].Reset)
	}
	return sum
}

// endSockets ends those of the calling thread's network namespace.
func (b *Balancer) endSockets() error {
	if len(b.reset.iterators) == 0 {
		return b.endByDiag()
	}
	for _, it := range b.reset.iterators {
		sockets, err := it.Open()
		if err != nil {
			return fmt.Errorf("open socket iterator: %w", err)
		}
		_, err = io.Copy(io.Discard, sockets)
		if err = errors.Join(err, sockets.Close()); err != nil {
			return fmt.Errorf("read socket iterator: %w", err)
		}
	}
	return nil
}

// inNamespaces does it in every network namespace that a process of the cgroup
// has. Sockets that no process there can reach are not found.
func (b *Balancer) inNamespaces(do func() error) error {
	namespaces, err := networkNamespaces(b.options.Cgroup)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() { done <- visitNamespaces(namespaces, do) }()
	return <-done
}

func visitNamespaces(namespaces []string, do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	var faults []error
	for _, path := range namespaces {
		if err := enterNamespace(path); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				faults = append(faults, err)
			}
			continue // with its last process, its sockets have ended
		}
		faults = append(faults, do())
	}
	// A thread that cannot go back stays locked and ends with its goroutine. It
	// is the exception, since children with a parent-death signal end with it.
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(append(faults, fmt.Errorf("return to own network namespace: %w", err))...)
	}
	runtime.UnlockOSThread()
	return errors.Join(faults...)
}

func enterNamespace(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// networkNamespaces lists one path for each network namespace of the processes
// in the cgroup and those below it.
func networkNamespaces(cgroup string) ([]string, error) {
	var all []string
	seen := map[string]bool{}
	err := eachProcess(cgroup, func(pid string) {
		file := "/proc/" + pid + "/ns/net"
		if id, err := os.Readlink(file); err == nil && !seen[id] {
			seen[id] = true
			all = append(all, file)
		}
	})
	return all, err
}

// eachProcess goes through the processes in the cgroup and those below it.
func eachProcess(cgroup string, do func(pid string)) error {
	err := filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		processes, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for _, pid := range strings.Fields(string(processes)) {
			do(pid)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the processes of %s: %w", cgroup, err)
	}
	return nil
}

// ignoreGone drops the errors of cgroups that are removed meanwhile or are
// threaded, whose processes are listed by the cgroup above.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
