package dnsbench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weirproject/weir/dnsproxy"
)

// childVariable holds the work of a process that was started as a server.
const childVariable = "WEIR_DNSBENCH_CHILD"

// childJob is what such a process shall be.
type childJob struct {
	Library  bool // a bare server on the DNS library instead of ours
	Listen   netip.AddrPort
	Names    int
	Upstream netip.AddrPort // not valid: forward nothing

	documents uint64 // bytes
}

// childState is what ours says of itself.
type childState struct {
	Goroutines int
	// Heap that is live, and the part of it that the documents take, which the
	// names are made of.
	Heap, Documents uint64
}

// Main serves and exits, if this process was started to; it returns at once
// otherwise.
func Main() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var j childJob
	err := json.Unmarshal([]byte(text), &j)
	if err == nil && j.Library {
		err = j.serveLibrary()
	} else if err == nil {
		err = j.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmark's server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (j *childJob) serve() error {
	s := snapshot(j.Names)
	j.documents = liveHeap()
	table, err := dnsproxy.Compile(s, dnsproxy.Options{Domain: domain})
	if err != nil {
		return err
	}
	o := dnsproxy.ServerOptions{Listen: []netip.AddrPort{j.Listen}, ResponseRate: -1}
	if j.Upstream.IsValid() {
		o.Upstreams = []netip.AddrPort{j.Upstream}
	}
	p, err := dnsproxy.New(o)
	if err != nil {
		return err
	}
	p.Set(table)
	if err := p.Listen(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	debug.FreeOSMemory() // what compiling took
	fmt.Println("{}")
	j.obey(p)
	stop()
	return <-done
}

// obey does what the benchmark says, a word on each line, until it closes the
// input.
func (j *childJob) obey(p *dnsproxy.Proxy) {
	stop := func() {}
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch strings.TrimSpace(input.Text()) {
		case "free":
			debug.FreeOSMemory()
		case "change":
			stop = startChanges(p)
		case "rest":
			stop()
			stop = func() {}
		}
		json.NewEncoder(os.Stdout).Encode(childState{runtime.NumGoroutine(), liveHeap(), j.documents})
	}
	stop()
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// changesPerSecond of tasks. Those of one applyEvery make one table, as when an
// agent takes what has come meanwhile. One of each moves the task that the
// clock's name is of; it counts as having come when the others began to.
const (
	changesPerSecond = 1000
	applyEvery       = 10 * time.Millisecond
)

// clockName is of a task whose address tells when it was set: the lower three
// bytes of the time in milliseconds.
const clockName = "clock.marathon." + domain

// startChanges changes tasks until the function that it gives is called.
func startChanges(p *dnsproxy.Proxy) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(applyEvery)
		defer every.Stop()
		for i := 0; ctx.Err() == nil; {
			at := (<-every.C).Add(-applyEvery).UnixMilli()
			change := dnsproxy.Change{Revision: uint64(i), Tasks: []dnsproxy.Task{task("clock", "clock", netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)}))}}
			for range int(changesPerSecond*applyEvery/time.Second) - 1 {
				change.Tasks = append(change.Tasks, task(fmt.Sprint("t", i%1000), fmt.Sprint("app", i%100), hostAddress(i)))
				i++
			}
			table, err := p.Table().Apply(change)
			if err != nil {
				fmt.Fprintln(os.Stderr, "benchmark's server: change:", err)
				return
			}
			p.Set(table)
		}
	}()
	return func() { cancel(); <-done }
}

func task(id, app string, at netip.Addr) dnsproxy.Task {
	return dnsproxy.Task{ID: id, Path: []string{app}, Node: "n1", Addresses: []netip.Addr{at}, Ports: []dnsproxy.TaskPort{{Name: "http", Port: 80}}}
}
