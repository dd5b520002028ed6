package edge

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bench testdata/bench.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter

// wide makes a service of 100 backends behind 65,537 slots.
func wide(name string, protocol api.Protocol, frontend string, deliver api.Deliver) *dataplane.EdgeService {
	s := &dataplane.EdgeService{Name: name, Protocol: protocol, Frontends: []netip.AddrPort{addr(frontend)}, Deliver: deliver}
	at := netip.MustParseAddr("10.80.1.1")
	if addr(frontend).Addr().Is6() {
		at = netip.MustParseAddr("fd00::100")
	}
	for range 100 {
		s.Backends = append(s.Backends, dataplane.EdgeBackend{Address: netip.AddrPortFrom(at, 80), Node: at, State: api.Up})
		at = at.Next()
	}
	for i := range 65537 {
		s.Slots = append(s.Slots, uint32(i*61%100))
	}
	return s
}

// measured is a program that a benchmark runs: a wrapper, or the edge itself.
func measured(b *testing.B, e *Edge, program string, flows, size uint32, v6 bool) *ebpf.Program {
	b.Helper()
	spec, err := loadBench()
	if err != nil {
		b.Fatal(err)
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range e.maps {
		if spec.Maps[name] != nil {
			spec.Maps[name].MaxEntries = m.MaxEntries()
			shared[name] = m
		}
	}
	six := uint32(0)
	if v6 {
		six = 1
	}
	for name, value := range map[string]uint32{"bench_mask": flows - 1, "bench_size": size, "bench_v6": six} {
		if err := spec.Variables[name].Set(value); err != nil {
			b.Fatal(err)
		}
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		b.Fatalf("load: %v", err)
	}
	b.Cleanup(c.Close)
	return c.Programs[program]
}

func threadTime(b *testing.B) int64 {
	b.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return now.Nano()
}

// BenchmarkEdge measures what one packet costs, with what the wrapper adds: rows
// are named after the flows that take turns.
func BenchmarkEdge(b *testing.B) {
	o := testOptions(b, newBPFFS(b))
	o.Sizes = Sizes{}
	e := open(b, o)
	set(b, e, table(wide("t4", api.TCP, "198.18.0.1:80", api.IPIP), wide("t4g", api.TCP, "198.18.0.2:80", api.DSR),
		wide("t6", api.TCP, "[fd77::1]:80", api.IPIP), wide("t6g", api.TCP, "[fd77::2]:80", api.DSR),
		wide("u4", api.UDP, "198.18.0.1:80", api.IPIP), wide("u4g", api.UDP, "198.18.0.2:80", api.DSR)))
	v4, v6 := addr("203.0.113.9:4000"), addr("[2001:db8::9]:4000")
	run := func(name, program string, flows, size uint32, f frame) {
		f.payload = make([]byte, 10)
		b.Run(name, func(b *testing.B) {
			p := e.programs.Programs[program]
			if p == nil {
				p = measured(b, e, program, flows, size, f.src.Addr().Is6())
			}
			raw := f.ethernet()
			if _, err := p.Run(&ebpf.RunOptions{Data: raw, Repeat: 200000}); err != nil {
				b.Fatal(err)
			}
			// The thread's own time leaves out who else was on its CPU.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ResetTimer()
			before := threadTime(b)
			if _, err := p.Run(&ebpf.RunOptions{Data: raw, Repeat: uint32(b.N)}); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(threadTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
	tcp4 := frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp}
	run("floor/pass", "bench_pass", 1, 0, tcp4)
	run("floor/wrapper", "bench_wrapper", 65536, 20, tcp4)
	foreign := frame{src: v4, dst: addr("198.18.9.1:80"), protocol: tcp}
	run("foreign/tcp4", hooks["xdp"].program, 1, 0, foreign)
	run("foreign/tcp6", hooks["xdp"].program, 1, 0, frame{src: v6, dst: addr("[fd77::9]:80"), protocol: tcp})
	for _, way := range []struct {
		name   string
		at4    string
		at6    string
		s4, s6 uint32
	}{{"ipip", "198.18.0.1:80", "[fd77::1]:80", 20, 40}, {"gue", "198.18.0.2:80", "[fd77::2]:80", 40, 72}} {
		for _, flows := range []uint32{1, 65536} {
			suffix := fmt.Sprintf("/%s/%d", way.name, flows)
			run("tcp4"+suffix, "bench_deliver", flows, way.s4, frame{src: v4, dst: addr(way.at4), protocol: tcp})
			run("syn4"+suffix, "bench_deliver", flows, way.s4, frame{src: v4, dst: addr(way.at4), protocol: tcp, flags: syn})
			run("udp4"+suffix, "bench_deliver", flows, way.s4, frame{src: v4, dst: addr(way.at4), protocol: udp})
			run("tcp6"+suffix, "bench_deliver", flows, way.s6, frame{src: v6, dst: addr(way.at6), protocol: tcp})
		}
	}
}
