package answers

import (
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bench testdata/bench.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter

// measured loads a wrapper of testdata/bench.c over the answerer's maps, for one
// query.
func measured(t testing.TB, a *Answerer, program string, frame []byte) *ebpf.Program {
	t.Helper()
	spec, err := loadBench()
	if err != nil {
		t.Fatal(err)
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range a.maps {
		spec.Maps[name].MaxEntries = m.MaxEntries()
		shared[name] = m
	}
	if err := spec.Variables["bench_size"].Set(uint32(len(frame))); err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	t.Cleanup(c.Close)
	whole := make([]byte, 320)
	copy(whole, frame)
	if err := c.Maps["bench_frame"].Put(uint32(0), whole); err != nil {
		t.Fatal(err)
	}
	return c.Programs[program]
}

// manyNames are 100,000 with one address each.
func manyNames() *fixed {
	f := &fixed{names: map[string]Name{}}
	for i := range 100_000 {
		n := small(fmt.Sprintf("\x09name%05d\x04shop\x04weir\x08internal\x00", i))
		f.names[n.Wire] = n
	}
	return f
}

// BenchmarkProgram tells what the program costs, a packet, by BPF_PROG_TEST_RUN:
// ns/query includes what the wrapper adds to make the query anew, which the row
// "wrapper" has alone.
func BenchmarkProgram(b *testing.B) {
	few := sharedAnswerer(b)
	for _, c := range []struct {
		name, question string
		qtype          uint16
		change         func(*dns.Msg)
	}{
		{"A", "one.weir.internal.", dns.TypeA, func(*dns.Msg) {}},
		{"A-edns", "one.weir.internal.", dns.TypeA, edns(1232, false)},
		{"A-8", "eight.weir.internal.", dns.TypeA, func(*dns.Msg) {}},
		{"AAAA-8-edns", "sixeight.weir.internal.", dns.TypeAAAA, edns(1232, false)},
		{"nodata", "one.weir.internal.", dns.TypeAAAA, func(*dns.Msg) {}},
		{"long-name", repeat('x', 63) + "." + repeat('x', 42) + ".weir.internal.", dns.TypeA, func(*dns.Msg) {}},
	} {
		for _, p := range []packet{{from: cli4, to: here4, sum: sumPartial}, {from: cli6, to: here6, sum: sumPartial}} {
			family := map[bool]string{true: "6", false: "4"}[p.to.Addr().Is6()]
			p.payload = question(b, c.question, c.qtype, c.change)
			b.Run(c.name+"-"+family, func(b *testing.B) { benchmark(b, few, "bench_answer", p.frame(), tcxRedirect) })
		}
	}
	one := packet{from: cli4, to: here4, sum: sumPartial, payload: question(b, "one.weir.internal.", dns.TypeA)}
	b.Run("wrapper", func(b *testing.B) { benchmark(b, few, "bench_wrapper", one.frame(), tcxRedirect) })
	none := one
	none.payload = question(b, "none.weir.internal.", dns.TypeA)
	b.Run("no-such-name", func(b *testing.B) { benchmark(b, few, "", none.frame(), tcxNext) })
	other := packet{from: cli4, to: ap("10.80.0.1:80"), payload: make([]byte, 64)}
	b.Run("others-packet", func(b *testing.B) { benchmark(b, few, "", other.frame(), tcxNext) })
	o := newOptions(b)
	o.MaxNames = 0
	many := open(b, o)
	start := time.Now()
	if _, err := setNowhere(many, Table{Listen: tableOf(shared.table).Listen, Names: manyNames()}); err != nil {
		b.Fatal(err)
	}
	b.Logf("100,000 names take %s to write", time.Since(start))
	table := Table{Listen: tableOf(shared.table).Listen, Names: manyNames()}
	for range 2 {
		if _, err := setNowhere(many, table); err != nil {
			b.Fatal(err)
		}
	}
	start = time.Now()
	if c, err := setNowhere(many, table); err != nil || c != (dataplane.Changes{}) {
		b.Fatal(c, err)
	}
	b.Logf("a Set that changes nothing takes %s", time.Since(start))
	one.payload = question(b, "name31415.shop.weir.internal.", dns.TypeA)
	b.Run("A-of-100000", func(b *testing.B) { benchmark(b, many, "bench_answer", one.frame(), tcxRedirect) })
}

// benchmark runs a wrapper, or the program itself, on a frame.
func benchmark(b *testing.B, a *Answerer, wrapper string, frame []byte, want uint32) {
	program := a.programs.Programs[bpf.DnsAnswerProgWeirDnsAnswer]
	if wrapper != "" {
		program = measured(b, a, wrapper, frame)
	}
	var total time.Duration
	runs := 0
	for b.Loop() {
		if err := a.Beat(); err != nil {
			b.Fatal(err)
		}
		const repeat = 10_000
		word, took, err := program.Benchmark(frame, repeat, nil)
		if err != nil || word != want {
			b.Fatalf("word %d, %v", word, err)
		}
		total, runs = total+took*repeat, runs+repeat
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(runs), "ns/query")
}
