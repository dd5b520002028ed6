package dnsbench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	// settle is how long a client is measured, with a disturbance or without.
	settle = 5 * time.Second
)

// size measures what the large zone takes, and that denials do not add to it.
func (r *Result) size(ctx context.Context, o Options, b *bed) error {
	s, files, err := b.ours(ctx, o.Names)
	if err != nil {
		return err
	}
	defer s.stop()
	small, _, err := b.ours(ctx, 10)
	if err != nil {
		return err
	}
	defer small.stop()
	var base, large childState
	if base, err = small.tell("free"); err != nil {
		return err
	}
	if large, err = s.tell("free"); err != nil {
		return err
	}
	before := s.memory()
	documents := int64(large.Documents - base.Documents)
	more := func(now, then uint64) float64 { return float64(int64(now)-int64(then)-documents) / mib }
	r.single("the large zone: live heap more than for 10 names, documents aside", 64, true, more(large.Heap, base.Heap), " MiB")
	r.single("the large zone: memory of the process more than for 10 names, documents aside", 64, true, more(before, small.memory()), " MiB")
	packets, err := packetsOf(files["none"], 50_000)
	if err != nil {
		return err
	}
	f, err := newFlood(s, packets)
	if err != nil {
		return err
	}
	defer f.close()
	during, stop := context.WithTimeout(ctx, settle)
	defer stop()
	f.run(during, 0)
	if _, err = s.tell("free"); err != nil {
		return err
	}
	r.single("memory after a flood of names that are not there, of that before", 1.05, true, float64(s.memory())/float64(before), "")
	return nil
}

// ours starts our own server for the parts without peers.
func (b *bed) ours(ctx context.Context, names int) (*server, questions, error) {
	files, err := writeQuestions(b.dir, names)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.start(ctx, weir, setup{names: names})
	return s, files, err
}

// overload asks twice as much as can be answered.
func (r *Result) overload(ctx context.Context, o Options, b *bed) error {
	// The server has one CPU and who asks another, or none could ask so much.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read the CPUs: %w", err)
	}
	defer unix.SchedSetaffinity(0, &before)
	if err := pin(&before, 0); err != nil {
		return err
	}
	s, files, err := b.ours(ctx, 10)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := pin(&before, 1); err != nil {
		return err
	}
	m, err := b.perf(ctx, s, files["a"], false, 2*o.Each.Seconds())
	if err != nil {
		return err
	}
	packets, err := packetsOf(files["a"], 1000)
	if err != nil {
		return err
	}
	f, err := newFlood(s, packets)
	if err != nil {
		return err
	}
	defer f.close()
	calm, err := s.tell("free")
	if err != nil {
		return err
	}
	memory := s.memory()
	usual, err := s.steady(ctx, hostName(0)+"."+domain)
	if err != nil {
		return err
	}
	during, stop := context.WithTimeout(ctx, o.Overload)
	defer stop()
	sent, got := f.run(during, 2*m.Rate)
	recovered, err := s.recovers(ctx, max(20*time.Millisecond, quantile(usual.took, 0.99)))
	if err != nil {
		return err
	}
	after, err := s.tell("free")
	if err != nil {
		return err
	}
	r.single(fmt.Sprintf("overload of %.1f × %.0f a second: answers, of what can be answered", sent/m.Rate, m.Rate), 0.8, false, got/m.Rate, "")
	r.single("overload: memory after it, of that before", 1.05, true, float64(s.memory())/float64(memory), "")
	r.single("overload: goroutines after it, more than before", 0, true, float64(after.Goroutines-calm.Goroutines), "")
	r.single("overload: until it answers as usual", 1, true, recovered.Seconds(), " s")
	return nil
}

// pin lets the thread, and processes that it starts, run on the n-th of the CPUs
// only, or on the last one.
func pin(cpus *unix.CPUSet, n int) error {
	var one unix.CPUSet
	for cpu := 0; cpu < len(cpus)*64 && n >= 0; cpu++ {
		if cpus.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
			n--
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("pin to a CPU: %w", err)
	}
	return nil
}

// recovers gives the time until ten answers in a row came within what is usual.
func (s *server) recovers(ctx context.Context, usual time.Duration) (time.Duration, error) {
	start := time.Now()
	for time.Since(start) < time.Minute {
		took := time.Since(start)
		during, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		p, err := s.probe(during, hostName(0)+"."+domain, 100)
		stop()
		if err != nil {
			return 0, err
		}
		if p.answered == p.sent && quantile(p.took, 1) <= usual {
			return took, nil
		}
	}
	return time.Since(start), nil
}

// broken packets: random bytes, and true questions with some bytes changed, cut
// or grown.
func broken(from [][]byte, count int) [][]byte {
	all := make([][]byte, count)
	for i := range all {
		p := append([]byte(nil), from[i%len(from)]...)
		switch i % 4 {
		case 0:
			p = p[:1+rand.IntN(len(p)-1)]
		case 1:
			p = make([]byte, 1+rand.IntN(300))
			fallthrough
		case 2:
			for range 1 + len(p)/2 {
				p[rand.IntN(len(p))] = byte(rand.Uint32())
			}
		case 3:
			p[4+rand.IntN(8)] ^= byte(1 + rand.IntN(255)) // counts of records that are not there
		}
		all[i] = p
	}
	return all
}

// hostile sends broken packets: many, and then at a pace beside a client.
func (r *Result) hostile(ctx context.Context, o Options, b *bed) error {
	const count, pace = 200_000, 5000
	s, files, err := b.ours(ctx, 1000)
	if err != nil {
		return err
	}
	defer s.stop()
	good, err := packetsOf(files["a"], 1000)
	if err != nil {
		return err
	}
	f, err := newFlood(s, broken(good, count))
	if err != nil {
		return err
	}
	defer f.close()
	if _, err := s.tell("free"); err != nil {
		return err
	}
	memory := s.memory()
	all, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	f.run(all, count/8)
	total := f.sent
	quiet, err := s.steady(ctx, hostName(1)+"."+domain)
	if err != nil {
		return err
	}
	beside, rest := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); f.run(beside, pace) }()
	noisy, err := s.steady(ctx, hostName(1)+"."+domain)
	rest()
	<-done
	if err != nil {
		return err
	}
	if _, err := s.tell("free"); err != nil {
		return fmt.Errorf("after hostile packets: %w", err)
	}
	r.single(fmt.Sprintf("%d hostile packets: memory after them, of that before", total+f.sent), 1.05, true, float64(s.memory())/float64(memory), "")
	p99 := func(p probes) float64 { return float64(quantile(p.took, 0.99)) / 1e6 }
	r.single(fmt.Sprintf("%d broken packets a second: p99 of another client more than without (%.2f ms)", pace, p99(quiet)), 20, true, p99(noisy)-p99(quiet), " ms")
	r.single("the same: share of that client's questions answered", 1, false, float64(noisy.answered)/float64(noisy.sent), "")
	return nil
}

// steady is a client that asks 500 times a second for a while.
func (s *server) steady(ctx context.Context, name string) (probes, error) {
	during, stop := context.WithTimeout(ctx, settle)
	defer stop()
	return s.probe(during, name, 500)
}

// changes changes tasks while all questions come that can be answered.
func (r *Result) changes(ctx context.Context, o Options, b *bed) error {
	s, files, err := b.ours(ctx, o.Names)
	if err != nil {
		return err
	}
	defer s.stop()
	type load struct {
		m   measurement
		p   probes
		err error
	}
	under := func(name string) load {
		loaded := make(chan load, 1)
		go func() {
			m, err := b.perf(ctx, s, files["a"], false, settle.Seconds()+1)
			loaded <- load{m: m, err: err}
		}()
		time.Sleep(500 * time.Millisecond)
		p, err := s.steady(ctx, name)
		l := <-loaded
		l.p = p
		if l.err == nil {
			l.err = err
		}
		return l
	}
	still := under(hostName(1) + "." + domain)
	if still.err != nil {
		return still.err
	}
	if _, err := s.tell("change"); err != nil {
		return err
	}
	moving := under(clockName)
	if moving.err != nil {
		return moving.err
	}
	if _, err := s.tell("rest"); err != nil {
		return err
	}
	if len(moving.p.age) == 0 {
		return fmt.Errorf("%d changes a second: no answer tells its time", changesPerSecond)
	}
	what := fmt.Sprintf("%d changes a second under full load: ", changesPerSecond)
	r.single(what+"age of the oldest answer", 100, true, float64(quantile(moving.p.age, 1))/1e6, " ms")
	r.single(what+"p99, of that without", 1.25, true, float64(quantile(moving.p.took, 0.99))/float64(quantile(still.p.took, 0.99)), "")
	r.single(what+"rate, of that without", 0.8, false, moving.m.Rate/still.m.Rate, "")
	return nil
}
