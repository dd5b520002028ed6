package dnsproxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fakeWay answers without a network, so that time can be a test's own.
type fakeWay struct {
	// answer gives how long a question takes and its RCODE; a negative time is
	// silence.
	answer func(n int) (time.Duration, int)

	mu     sync.Mutex // guards what follows, and answer while it runs
	asked  int
	silent bool
	slower time.Duration
}

// queries that came so far.
func (f *fakeWay) queries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// turn makes it silent or not, and slower than answer says.
func (f *fakeWay) turn(silent bool, slower time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent, f.slower = silent, slower
}

func (f *fakeWay) send(c *call, packet []byte) error {
	f.mu.Lock()
	f.asked++
	after, rcode := f.answer(f.asked)
	if after >= 0 {
		after += f.slower
	}
	if f.silent {
		after = -1
	}
	f.mu.Unlock()
	if after < 0 {
		return nil
	}
	q := new(dns.Msg)
	if err := q.Unpack(packet); err != nil {
		return err
	}
	m := new(dns.Msg).SetRcode(q, rcode)
	if rcode == dns.RcodeSuccess {
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
		m.Answer = append(m.Answer, rr)
	}
	m.SetEdns0(1232, false)
	wire, err := m.Pack()
	if err != nil {
		return err
	}
	time.AfterFunc(after, func() { c.deliver(wire, nil) })
	return nil
}

func (f *fakeWay) cancel(*call) {}
func (f *fakeWay) close()       {}

// faked is a proxy whose upstreams are fakes.
func faked(t *testing.T, fakes ...*fakeWay) *Proxy {
	t.Helper()
	var at []netip.AddrPort
	for i := range fakes {
		at = append(at, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 53))
	}
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}, Upstreams: at})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	for i, u := range p.forward.routes.Load().upstreams {
		u.ways = ways{fakes[i], fakes[i]}
	}
	return p
}

// timed asks for a name that nobody has asked for, and gives how long that took.
func timed(t *testing.T, p *Proxy, n int) (time.Duration, *dns.Msg) {
	start := time.Now()
	m := resolve(t, p, fmt.Sprintf("n%d.example.", n), dns.TypeA)
	return time.Since(start), m
}

func steady(d time.Duration) func(int) (time.Duration, int) {
	return func(int) (time.Duration, int) { return d, dns.RcodeSuccess }
}

func TestOneSilentUpstreamOfTwoDelaysNobody(t *testing.T) {
	for _, from := range []int{0, 200} { // silent from the start, and from then on
		synctest.Test(t, func(t *testing.T) {
			dead := &fakeWay{answer: func(n int) (time.Duration, int) {
				if n > from {
					return -1, 0
				}
				return time.Millisecond, dns.RcodeSuccess
			}}
			good := &fakeWay{answer: steady(3 * time.Millisecond)}
			p := faked(t, dead, good)
			for i := range 600 {
				took, m := timed(t, p, i)
				if took > 100*time.Millisecond || m.Rcode != dns.RcodeSuccess {
					t.Fatalf("question %d took %s: %v", i, took, m)
				}
				time.Sleep(33 * time.Millisecond)
			}
			if dead.queries() > from+20 {
				t.Errorf("the silent one was asked %d times after it fell silent", dead.queries()-from)
			}
		})
	}
}

func TestHedgesStayWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		slowTail := func(base time.Duration) func(int) (time.Duration, int) {
			return func(int) (time.Duration, int) {
				d := base + time.Duration(r.ExpFloat64()*float64(base)/4)
				if r.IntN(100) < 3 {
					d *= 20
				}
				return d, dns.RcodeSuccess
			}
		}
		a, b := &fakeWay{answer: slowTail(5 * time.Millisecond)}, &fakeWay{answer: slowTail(8 * time.Millisecond)}
		p := faked(t, a, b)
		const questions = 3000
		slow := 0
		for i := range questions {
			if took, _ := timed(t, p, i); took > 60*time.Millisecond {
				slow++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if load := float64(a.queries()+b.queries()) / questions; load > 1.1 {
			t.Errorf("upstreams saw %.3f times the questions (%d and %d), want at most 1.1", load, a.queries(), b.queries())
		}
		if slow > questions/100 { // 3 in 100 without hedges
			t.Errorf("%d of %d answers took more than 60 ms", slow, questions)
		}
	})
}

func TestQuickerUpstreamIsPreferredAndTheOtherTriedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := &fakeWay{answer: steady(40 * time.Millisecond)}, &fakeWay{answer: steady(5 * time.Millisecond)}
		p := faked(t, slow, quick)
		for i := range 600 {
			timed(t, p, i)
			time.Sleep(time.Second)
		}
		if quick.queries() < 580 || slow.queries() < 2 {
			t.Errorf("the quick one was asked %d times, the slow one %d", quick.queries(), slow.queries())
		}
		before := slow.queries()
		quick.turn(true, 0)
		for i := range 20 {
			timed(t, p, 1000+i)
		}
		if slow.queries()-before < 20 {
			t.Errorf("once the quick one fell silent the other got %d of 20 questions", slow.queries()-before)
		}
	})
}

func TestFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &fakeWay{answer: steady(time.Millisecond), silent: true}
		p := faked(t, first, &fakeWay{answer: steady(10 * time.Millisecond)})
		for i := range 60 { // a minute of failure
			timed(t, p, i)
			time.Sleep(time.Second)
		}
		first.turn(false, 0)
		time.Sleep(time.Hour)
		before := first.queries()
		for i := range 10 {
			timed(t, p, 100+i)
		}
		if first.queries()-before < 9 {
			t.Errorf("an hour later the quicker one got %d of 10 questions", first.queries()-before)
		}
	})
}

func TestSlowGoodAnswerBeatsQuickFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := &fakeWay{answer: func(int) (time.Duration, int) { return time.Millisecond, dns.RcodeServerFailure }}
		p := faked(t, bad, &fakeWay{answer: steady(300 * time.Millisecond)})
		for i := range 20 {
			if _, m := timed(t, p, i); m.Rcode != dns.RcodeSuccess {
				t.Fatalf("question %d: got %v", i, m)
			}
		}
		if bad.queries() > 5 {
			t.Errorf("the one that fails was asked %d times of 20", bad.queries())
		}
	})
}

func TestOldAnswerServesInTimeWhenUpstreamsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeWay{answer: steady(time.Millisecond)}
		p := faked(t, up)
		timed(t, p, 1)
		time.Sleep(2 * time.Hour)
		up.turn(false, 2499*time.Millisecond)
		if took, m := timed(t, p, 1); took != defaultStaleIn || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("after %s: got %v, want the old answer after %s", took, m, defaultStaleIn)
		}
		if took, m := timed(t, p, 1); took != 0 || m.Answer[0].Header().Ttl != staleTTL {
			t.Errorf("while it is still being asked for: got %v after %s", m, took)
		}
		time.Sleep(time.Second)
		if took, m := timed(t, p, 1); took != 0 || m.Answer[0].Header().Ttl != 60 {
			t.Errorf("then: got %v after %s, want the new answer", m, took)
		}
	})
}

func TestOldAnswerServesAtOnceWhenUpstreamsAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeWay{answer: steady(time.Millisecond)}
		p := faked(t, up)
		for i := range 3 {
			timed(t, p, i)
		}
		time.Sleep(time.Hour)
		up.turn(true, 0)
		if took, m := timed(t, p, 100); m.Rcode != dns.RcodeServerFailure || took > 4*time.Second {
			t.Errorf("not known before: got %v after %s", m, took)
		}
		for i := range 3 {
			if took, m := timed(t, p, i); took != 0 || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != staleTTL {
				t.Errorf("known before: got %v after %s", m, took)
			}
		}
		time.Sleep(5 * time.Second)
		up.turn(false, 0)
		time.Sleep(time.Minute)
		timed(t, p, 0) // served old, and asked for
		time.Sleep(10 * time.Millisecond)
		if _, m := timed(t, p, 0); m.Answer[0].Header().Ttl != 60 {
			t.Errorf("when it is back: got %v", m)
		}
		time.Sleep(25 * time.Hour)
		up.turn(true, 0)
		if _, m := timed(t, p, 1); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("after a day: got %v, want SERVFAIL", m)
		}
	})
}

func TestHotNamesAreFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeWay{answer: steady(30 * time.Millisecond)}
		p := faked(t, up)
		worst := time.Duration(0)
		for range 200 {
			took, _ := timed(t, p, 1)
			if worst < took && up.queries() > 1 {
				worst = took
			}
			time.Sleep(time.Second)
		}
		if worst != 0 || up.queries() < 3 || up.queries() > 5 {
			t.Errorf("a name asked for each second waited up to %s, with %d queries in 200 s", worst, up.queries())
		}
		timed(t, p, 2) // asked for once
		before := up.queries()
		time.Sleep(58 * time.Second)
		timed(t, p, 2)
		time.Sleep(time.Second)
		if up.queries() != before {
			t.Error("a name that is rarely asked for is fetched ahead")
		}
	})
}
