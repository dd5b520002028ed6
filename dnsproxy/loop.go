package dnsproxy

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// A loop over other servers cannot be seen in the addresses, only in a question
// that comes back. So a question that nobody else can know is sent to each
// upstream when it is set, and when it has been silent: in a loop our own copy of
// a question waits for itself, which looks like silence.
const (
	// loopLabel is the second label of the probes' names, on the wire.
	loopLabel = "\x0fweir-loop-probe"
	// loopFor is how long an upstream that leads back is left out; then it is
	// probed again. probeEvery bounds the probes of one upstream.
	loopFor    = 60 * time.Second
	probeEvery = 30 * time.Second
	probeLife  = 5 * time.Second
	probeSize  = 1 + 32 // the first label: 16 random bytes in hex
)

// loopState of one upstream, in nanoseconds since the proxy's start.
type loopState struct {
	until  atomic.Int64 // it leads back to us; known until then
	probed atomic.Int64 // when it was probed last
	seen   atomic.Uint64
}

func (s *loopState) found(now int64) bool { return now < s.until.Load() }

// probes are the questions that must not come back.
type probes struct {
	mu  sync.Mutex // guards out
	out map[string]*upstream
}

// suspect probes an upstream, unless that was done lately.
func (f *forwarder) suspect(u *upstream, now int64) {
	last := u.loop.probed.Load()
	if last != 0 && now-last < int64(probeEvery) || !u.loop.probed.CompareAndSwap(last, max(now, 1)) {
		return
	}
	f.probe(u)
}

// probe sends a question with a random name. It does not matter what is answered.
func (f *forwarder) probe(u *upstream) {
	var secret [16]byte
	rand.Read(secret[:])
	label := hex.EncodeToString(secret[:])
	name := "\x20" + label + loopLabel + "\x00"
	f.probes.mu.Lock()
	if f.probes.out == nil {
		f.probes.out = map[string]*upstream{}
	}
	f.probes.out[name] = u
	f.probes.mu.Unlock()
	c := &call{up: u, q: &question{name: []byte(name), qtype: dns.TypeTXT}, clock: f.clock, done: func(*call, *response, error) {}}
	err := c.start()
	time.AfterFunc(probeLife, func() {
		f.probes.mu.Lock()
		delete(f.probes.out, name)
		f.probes.mu.Unlock()
		if err == nil {
			c.cancel()
		}
	})
}

// cameBack tells whether a question is one of our probes, and if so notes which
// upstream leads back to us.
func (f *forwarder) cameBack(name []byte) bool {
	if len(name) != probeSize+len(loopLabel)+1 || string(name[probeSize:probeSize+len(loopLabel)]) != loopLabel {
		return false
	}
	f.probes.mu.Lock()
	u := f.probes.out[string(name)]
	f.probes.mu.Unlock()
	if u == nil {
		return false // another proxy's
	}
	now := f.clock()
	known := u.loop.until.Load() > now-int64(loopFor)
	u.loop.until.Store(now + int64(loopFor))
	u.loop.seen.Add(1)
	if !known {
		f.log.Error("upstream leads back to this proxy; it is not asked", "upstream", u.name, "for", loopFor)
	}
	return true
}

// probeAll looks for loops over all upstreams.
func (f *forwarder) probeAll() {
	for _, u := range f.routes.Load().upstreams {
		f.suspect(u, f.clock())
	}
}

// reprobe looks again at those that led back to us, shortly before they would be
// asked again.
func (f *forwarder) reprobe(now int64) {
	for _, u := range f.routes.Load().upstreams {
		if until := u.loop.until.Load(); until > now && until-now < int64(loopFor)/2 {
			f.suspect(u, now)
		}
	}
}
