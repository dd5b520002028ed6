package answers

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	vethRounds = 5
	vethBatch  = 32
	vethPace   = 15_000 // queries a second
)

// BenchmarkOverVeth asks the proxy from a container as fast as it can, and then at
// a pace: one without the program, one with it, in turns. CPU is all that this
// process, which is client and server, takes for one answer, and what softirqs do
// meanwhile on its account. What is reported is the medians of the rounds.
//
//	go test ./dataplane/answers -run xx -bench OverVeth -benchtime 1x
func BenchmarkOverVeth(b *testing.B) {
	rigs := map[string]*rig{"user": newRig(b), "kernel": newRig(b)}
	rigs["kernel"].set()
	end := keepBeating(rigs["kernel"].a)
	defer end()
	for b.Loop() {
		results := map[string][]float64{}
		for range vethRounds {
			for _, way := range []string{"user", "kernel"} {
				cpu, rate := rigs[way].flood(time.Second)
				p50, p99 := rigs[way].paced(time.Second)
				for name, value := range map[string]float64{"cpu-µs": cpu, "qps": rate, "p50-µs": p50, "p99-µs": p99} {
					results[way+"-"+name] = append(results[way+"-"+name], value)
				}
			}
		}
		median := func(name string) float64 {
			slices.Sort(results[name])
			return results[name][vethRounds/2]
		}
		for name := range results {
			b.ReportMetric(median(name), name)
		}
		b.ReportMetric(median("kernel-cpu-µs")/median("user-cpu-µs"), "cpu-ratio")
		b.ReportMetric(median("kernel-p50-µs")/median("user-p50-µs"), "p50-ratio")
	}
	c := counters(b, rigs["kernel"].a)
	b.ReportMetric(float64(c.Answered)/float64(c.Answered+c.Passed["name"]+c.Passed["agent-silent"]), "kernel-share")
}

func keepBeating(a *Answerer) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(time.Second / 2); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				a.Beat()
			}
		}
	}()
	return func() { close(done); <-ended }
}

// socket is one of the client's, connected to the proxy.
func (r *rig) socket() (fd int) {
	r.t.Helper()
	r.client.must(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: here4.Addr().As4(), Port: int(here4.Port())})
	})
	return fd
}

type mmsg struct {
	header unix.Msghdr
	length uint32
}

func messages(buffers [][]byte) []mmsg {
	vectors, all := make([]unix.Iovec, len(buffers)), make([]mmsg, len(buffers))
	for i, b := range buffers {
		vectors[i].Base = &b[0]
		vectors[i].SetLen(len(b))
		all[i].header.Iov = &vectors[i]
		all[i].header.SetIovlen(1)
	}
	return all
}

func mmsgCall(trap uintptr, fd int, m []mmsg, flags uintptr) int {
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), flags, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// flood keeps a batch of queries under way.
func (r *rig) flood(length time.Duration) (cpu, rate float64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd := r.socket()
	defer unix.Close(fd)
	wire := question(r.t, "one.weir.internal.", dns.TypeA)
	out, in := make([][]byte, vethBatch), make([][]byte, vethBatch)
	for i := range out {
		out[i], in[i] = wire, make([]byte, 512)
	}
	send, receive := messages(out), messages(in)
	answers, start, before := 0, time.Now(), cpuTime()
	for time.Since(start) < length {
		sent := mmsgCall(unix.SYS_SENDMMSG, fd, send, 0)
		for got := 0; got < sent; {
			n := mmsgCall(unix.SYS_RECVMMSG, fd, receive[:sent-got], unix.MSG_WAITFORONE)
			if n == 0 {
				break // lost
			}
			got, answers = got+n, answers+n
		}
	}
	took := time.Since(start)
	return float64((cpuTime() - before).Microseconds()) / float64(max(1, answers)), float64(answers) / took.Seconds()
}

// paced sends at vethPace, whatever comes back, and gives the latencies.
func (r *rig) paced(length time.Duration) (p50, p99 float64) {
	fd := r.socket()
	defer unix.Close(fd)
	total := int(length.Seconds() * vethPace)
	sent := make([]atomic.Int64, total) // since start
	start := time.Now()
	received := make(chan []float64)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var all []float64
		buffer := make([]byte, 512)
		for silent := 0; silent < 4 && len(all) < total; {
			n, err := unix.Read(fd, buffer)
			if err != nil || n < 2 {
				silent++
				continue
			}
			silent = 0
			now := int64(time.Since(start))
			// The id has 16 bits, of which none is used twice in this time.
			all = append(all, float64(now-sent[binary.BigEndian.Uint16(buffer)].Load())/1000)
		}
		received <- all
	}()
	runtime.LockOSThread()
	wire := question(r.t, "one.weir.internal.", dns.TypeA)
	for i := range total {
		due := time.Duration(i) * time.Second / vethPace
		if wait := due - time.Since(start); wait > 0 {
			unix.Nanosleep(&unix.Timespec{Nsec: int64(wait)}, nil)
		}
		binary.BigEndian.PutUint16(wire, uint16(i))
		sent[i].Store(int64(time.Since(start)))
		unix.Write(fd, wire)
	}
	runtime.UnlockOSThread()
	all := <-received
	if len(all) == 0 {
		r.t.Fatal("nothing came back")
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
