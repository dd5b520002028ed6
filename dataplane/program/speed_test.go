package program

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// many makes services on 10.80.0.11 and its like, each with 10 backends; the
// first ones are reached.
func many(services int) dataplane.Table {
	t := table()
	for i := range services {
		s := service(fmt.Sprintf("s%05d/udp/4", i), api.UDP, fmt.Sprintf("198.18.%d.%d:53", i/250, i%250+1))
		for j := range 10 {
			s.Backends = append(s.Backends, dataplane.Backend{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 80, byte(i / 6000), 11}), uint16(1024+i*10%60000+j)), State: api.Up,
			})
			s.Slots = append(s.Slots, uint32(j))
		}
		t.Services = append(t.Services, s)
	}
	return t
}

// TestProgramsAreShort measures by the kernel's own statistics what the connect
// program costs. UDP sockets connect without a packet, so nothing else is
// measured, and no server is needed.
func TestProgramsAreShort(t *testing.T) {
	l := newLab(t)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Skipf("no program statistics: %v", err)
	}
	defer stats.Close()
	for _, n := range []int{1, 1000} {
		o := l.options()
		o.PinDir = fmt.Sprintf("%s-%d", l.pins, n)
		o.Sizes = Sizes{}
		b, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		wanted := many(n)
		start := time.Now()
		set(t, b, wanted)
		first := time.Since(start)
		start = time.Now()
		set(t, b, wanted)
		again := time.Since(start)
		mean := func(target string, count int) time.Duration {
			p := b.programs.Programs[bpf.BalanceProgWeirConnect4]
			before, err := p.Stats()
			if err != nil {
				t.Fatal(err)
			}
			l.client.do(request{Op: "connect", Network: "udp", Target: netip.MustParseAddrPort(target), Count: count})
			after, err := p.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return (after.Runtime - before.Runtime) / time.Duration(after.RunCount-before.RunCount)
		}
		vip := mean("198.18.0.1:53", 20000)
		var wide time.Duration
		for i := range 20 {
			wide += mean(wanted.Services[i*n/20].Frontends[0].String(), 1000) / 20
		}
		t.Logf("%d services: connect4 %s to one VIP, %s over 20 of them, %s to another address; first Set %s, unchanged Set %s",
			n, vip, wide, mean("10.80.0.11:1", 20000), first, again)
		// A bound that holds on a busy machine and with the race detector.
		if vip > 5*time.Microsecond {
			t.Errorf("connect4 takes %s with %d services", vip, n)
		}
		b.Close()
		if _, err := Cleanup(o.PinDir); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
	}
}
