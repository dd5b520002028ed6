// Package load makes the traffic of a benchmark and serves it. Both ends are
// the calling binary once more: a program that uses the package calls Main
// first, which takes over when the process is such an end. Each end is one
// thread that makes its system calls itself, so that what is measured is the
// kernel and not Go's scheduler.
//
// It knows nothing about virtual IPs: it connects to the addresses it is given.
package load

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Op is a kind of traffic.
type Op string

// The kinds of traffic. All but the paced ones go as fast as they can, one
// exchange at a time.
const (
	Connect   Op = "connect"   // TCP connect and reset; the latency is connect()'s
	Request   Op = "request"   // TCP connect, one byte there and back, reset
	KeepAlive Op = "keepalive" // one byte there and back, on one open connection
	Bulk      Op = "bulk"      // as many bytes as fit through one connection
	Datagram  Op = "udp"       // one byte there and back by sendto and recvfrom, on one socket
	Connected Op = "udp-connected"
	Soak      Op = "soak"  // paced: new connections beside open ones, each answer checked
	Ports     Op = "ports" // paced: every connection from the next of 64,000 source ports
)

// Job is what a client is asked to do.
type Job struct {
	Op Op
	// Targets are used in turn: one for each connection, or for each run where
	// the socket stays open.
	Targets []netip.AddrPort
	For     time.Duration
	Rate    int // of Soak and Ports: new connections a second, at least 1
	Open    int // of Soak: connections that stay open, asked in turn
	// OpenTargets of those; Targets when empty.
	OpenTargets []netip.AddrPort
}

// Result of a Job.
type Result struct {
	Count   uint64 // exchanges that worked
	Bytes   uint64 // of Bulk
	Elapsed time.Duration
	// CPU time of the client's thread, with the kernel's work on its behalf: up
	// to the server's socket for what it sends.
	CPU     time.Duration
	Latency Histogram
	// Failures by step and error.
	Failures map[string]int
	// Wrong counts answers from a backend of another service (Soak), or from
	// another address than the one asked (Datagram).
	Wrong uint64
	// OpenCount and OpenFailures are about the connections that stay open.
	OpenCount    uint64
	OpenFailures map[string]int
}

// Failed sums the failures.
func (r Result) Failed() (total int) {
	for _, n := range r.Failures {
		total += n
	}
	return total
}

// Rate is the number of exchanges a second, or of bytes with Bulk.
func (r Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Count+r.Bytes) / r.Elapsed.Seconds()
}

// CPUEach is the CPU time of an exchange; 0 without any.
func (r Result) CPUEach() time.Duration {
	if r.Count == 0 {
		return 0
	}
	return r.CPU / time.Duration(r.Count)
}

// Add puts the other result, of a run of the same kind, on top of this one.
func (r *Result) Add(o Result) {
	r.Count, r.Bytes, r.Elapsed, r.CPU, r.Wrong = r.Count+o.Count, r.Bytes+o.Bytes, r.Elapsed+o.Elapsed, r.CPU+o.CPU, r.Wrong+o.Wrong
	r.Latency.Add(o.Latency)
	for why, n := range o.Failures {
		if r.Failures == nil {
			r.Failures = map[string]int{}
		}
		r.Failures[why] += n
	}
}

// Role of a process.
type Role string

// The roles.
const (
	Client Role = "client"
	Server Role = "server"
)

const (
	roleVariable = "WEIR_BENCH_ROLE"
	cpuVariable  = "WEIR_BENCH_CPU"
)

// Process is one end of the traffic, seen from its parent.
type Process struct {
	command *exec.Cmd
	in      io.Closer
	encoder *gob.Encoder
	decoder *gob.Decoder
}

// Start prepares the command, which must run the calling binary, and starts it
// by the given function. The process works on that CPU and is ready on return.
func Start(command *exec.Cmd, start func() error, role Role, cpu int) (*Process, error) {
	// A socket with a time-out is not resumed after a signal, and the runtime
	// preempts goroutines by signals.
	command.Env = append(os.Environ(), roleVariable+"="+string(role), cpuVariable+"="+strconv.Itoa(cpu), "GODEBUG=asyncpreemptoff=1")
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p := &Process{command: command, in: in, encoder: gob.NewEncoder(in), decoder: gob.NewDecoder(out)}
	var fault string
	err = p.decoder.Decode(&fault)
	if err == nil && fault != "" {
		err = errors.New(fault)
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

// PID of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Do has a client do the job and waits for the result. When ctx ends first, so
// does the client.
func (p *Process) Do(ctx context.Context, j Job) (Result, error) {
	var r Result
	release := context.AfterFunc(ctx, func() { _ = p.command.Process.Kill() })
	defer release()
	if err := p.encoder.Encode(j); err != nil {
		return r, fmt.Errorf("ask client for %s: %w", j.Op, err)
	}
	if err := p.decoder.Decode(&r); err != nil {
		return r, fmt.Errorf("result of %s: %w", j.Op, err)
	}
	return r, nil
}

// Stop ends the process.
func (p *Process) Stop() {
	p.in.Close()
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}
