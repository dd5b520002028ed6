package deliver

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
)

// BenchmarkPrograms reports the kernel's own count of time per run, which has
// some 20 ns of its clock in it; the empty program shows how much. A program
// changes its packet, so each run gets a fresh one, with cold caches.
func BenchmarkPrograms(b *testing.B) {
	d := sharedDeliverer(b)
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	deliver, answer := d.programs.Programs[bpf.DeliverProgWeirDeliver], d.programs.Programs[bpf.DeliverProgWeirAnswer]
	foreign := packet{from: ap("10.80.0.12:5000"), to: ap("10.80.0.11:5001"), protocol: tcp, flags: ack, payload: bytesOf(64)}
	cases := []struct {
		name    string
		program *ebpf.Program
		in      []byte
	}{
		{"empty", empty, foreign.frame()},
		{"ingress/foreign", deliver, foreign.frame()},
		{"egress/foreign", answer, foreign.frame()},
	}
	for _, f := range families[:2] {
		in := packet{from: f.client, to: f.vip, protocol: tcp, flags: ack, payload: bytesOf(64)}
		out := packet{from: f.back, to: f.client, protocol: tcp, flags: ack, payload: bytesOf(64)}
		ingress(b, d, f.wrap(in.ip()))
		cases = append(cases, []struct {
			name    string
			program *ebpf.Program
			in      []byte
		}{{"ingress/tcp/" + f.name, deliver, f.wrap(in.ip())}, {"egress/tcp/" + f.name, answer, out.frame()}}...)
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			before, err := c.program.Stats()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, _, err := c.program.Test(c.in); err != nil {
					b.Fatal(err)
				}
			}
			after, err := c.program.Stats()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(after.Runtime-before.Runtime)/float64(after.RunCount-before.RunCount), "ns/packet")
		})
	}
}
