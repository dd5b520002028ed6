// Package edgebench measures how many packets a second an edge node sends on to
// backends, beside what else one could use: plain forwarding, which is the limit
// of a router, and nftables with a map. Every way has a sender, an edge and a sink
// of its own, in network namespaces joined by veth pairs; all get the same frames,
// in rounds that take turns.
//
// A frame is handled from the sender's system call to the sink in one go, on one
// CPU. So what is told of a way includes the sender and the sink; the rows "wire"
// are these two alone, and what a way costs is the difference. A second is one of
// that CPU's work: a busy machine makes fewer rounds of it, not slower ones.
//
// IPVS is not among the ways: where the kernel has none, a virtual machine would
// be needed, whose times mean nothing.
//
// It makes nothing outside of namespaces of its own, which end with the process.
package edgebench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options of Run.
type Options struct {
	Rounds  int           // of all ways; 7 when zero
	Each    time.Duration // of sending in each round; 300 ms when zero
	Flows   int           // that take turns, 1 to 50,000; 1,024 when zero
	Payload int           // bytes of each UDP packet, up to 1,400; 18 when zero: the smallest frame
	// Only names ways to measure besides the wires and forwarding; empty: all.
	Only []string
	Log  *slog.Logger // may be nil
}

func (o Options) withDefaults() Options {
	if o.Rounds == 0 {
		o.Rounds = 7
	}
	if o.Each == 0 {
		o.Each = 300 * time.Millisecond
	}
	if o.Flows == 0 {
		o.Flows = 1024
	}
	if o.Payload == 0 {
		o.Payload = 18
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Rounds < 0 || o.Each < 0:
		return fmt.Errorf("options: Rounds %d and Each %s must not be negative", o.Rounds, o.Each)
	case o.Flows < 0 || o.Flows > 50000:
		return fmt.Errorf("options: Flows %d is not within 1 to 50000", o.Flows)
	case o.Payload < 0 || o.Payload > 1400:
		return fmt.Errorf("options: Payload %d is not within 0 to 1400", o.Payload)
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(ways, func(w way) bool { return w.name == name }) {
			return fmt.Errorf("options: Only names %q, which is no way; ways are %v", name, Ways())
		}
	}
	return nil
}

// Spread of a figure over the rounds.
type Spread struct{ Median, Min, Max float64 }

// Row is what one way did.
type Row struct {
	Name             string
	PacketsPerSecond Spread // that the sink got
	OfForwarding     Spread // against plain forwarding in the same round
	// Nanoseconds that a packet cost on the edge: without what the wire of the same
	// kind costs. Of the wires themselves: all.
	Nanoseconds Spread
}

// Result of a Run.
type Result struct {
	Kernel     string
	Processors int
	Rows       []Row
}

// Run measures. It needs root. A way that this machine cannot go is an error.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	type outcome struct {
		result Result
		err    error
	}
	done := make(chan outcome, 1)
	go apart(func() {
		r, err := run(ctx, o.withDefaults())
		done <- outcome{r, err}
	})
	got := <-done
	return got.result, got.err
}

// apart runs f on a thread that is thrown away with the namespaces that f gives
// it. The process's first thread is none that can be.
func apart(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		apart(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

func run(ctx context.Context, o Options) (Result, error) {
	dir, err := os.MkdirTemp("", "weir-edgebench-")
	if err != nil {
		return Result{}, err
	}
	defer os.Remove(dir)
	if err := privateBPFFS(dir); err != nil {
		return Result{}, err
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	var rigs []*rig
	defer func() {
		for _, r := range rigs {
			r.close()
		}
	}()
	for _, w := range ways {
		if !w.reference && len(o.Only) > 0 && !slices.Contains(o.Only, w.name) {
			continue
		}
		r, err := newRig(w, dir, o)
		if r != nil {
			rigs = append(rigs, r)
		}
		if err != nil {
			return Result{}, fmt.Errorf("lay %s: %w", w.name, err)
		}
	}
	for round := range o.Rounds {
		for i := range rigs {
			// Each round begins with another way, and every other one goes backwards.
			at := (i + round) % len(rigs)
			if round%2 == 1 {
				at = len(rigs) - 1 - at
			}
			if err := rigs[at].measure(ctx, o.Each); err != nil {
				return Result{}, fmt.Errorf("measure %s: %w", rigs[at].way.name, err)
			}
		}
	}
	return resultOf(rigs), nil
}

// privateBPFFS mounts one that only this thread sees.
func privateBPFFS(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	return nil
}

// Markdown writes the rows as a table.
func (r Result) Markdown(w io.Writer) error {
	var t strings.Builder
	fmt.Fprintf(&t, "Linux %s, %d processors; medians of the rounds, and their least and most.\n\n", r.Kernel, r.Processors)
	t.WriteString("| way | kpackets/s | of forwarding | ns a packet at the edge |\n|---|---|---|---|\n")
	for _, row := range r.Rows {
		p, f, n := row.PacketsPerSecond, row.OfForwarding, row.Nanoseconds
		fmt.Fprintf(&t, "| %s | %.0f (%.0f–%.0f) | %.2f (%.2f–%.2f) | %.0f (%.0f–%.0f) |\n",
			row.Name, p.Median/1e3, p.Min/1e3, p.Max/1e3, f.Median, f.Min, f.Max, n.Median, n.Min, n.Max)
	}
	_, err := io.WriteString(w, t.String())
	return err
}
