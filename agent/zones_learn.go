package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dnsproxy"
	"github.com/weirproject/weir/zones"
)

// learnGrace is how long after its TTL an address stays allowed: a client that
// was answered in the last moment has yet to connect.
const learnGrace = 5 * time.Second

// maxLearntNames bounds the names whose addresses are known at one time, as a
// rule for "*.example.com" lets anybody who may ask invent them. What is above is
// not let through.
const maxLearntNames = 65_536

// learnTimeout bounds how long a DNS answer waits for the packet filter.
const learnTimeout = 2 * time.Second

// zoneLearner lets through what the DNS proxy hands out for the names in egress
// rules. It implements dnsproxy.Learner.
type zoneLearner struct {
	zones *zonesComponent
	names atomic.Pointer[zones.Names]

	mu     sync.Mutex                          // guards what follows
	learnt map[string]map[netip.Addr]time.Time // until when, by name
	told   time.Time                           // when a failure was logged last
	dirty  bool                                // what is on disk is older

	dynamic []dataplane.DynamicSet // that names is made of; for the reconciler alone
	began   bool
}

func newZoneLearner(c *zonesComponent) *zoneLearner {
	l := &zoneLearner{zones: c, learnt: map[string]map[netip.Addr]time.Time{}}
	var kept map[string]map[netip.Addr]time.Time
	if _, err := load(l.path(), &kept); err != nil {
		c.agent.log.Warn("kept addresses of names discarded", "component", "zones", "error", err)
	} else if kept != nil {
		l.learnt = kept
	}
	return l
}

func (l *zoneLearner) path() string { return l.zones.agent.dataPath("zones-learnt.json") }

// Wants implements dnsproxy.Learner.
func (l *zoneLearner) Wants(name string) bool {
	names := l.names.Load()
	return names != nil && !names.Empty() && len(names.Sets(name)) > 0
}

// Learn implements dnsproxy.Learner.
func (l *zoneLearner) Learn(name string, addresses []netip.Addr, ttl time.Duration) {
	stay := ttl + learnGrace
	if !l.note(name, addresses, time.Now().Add(stay)) {
		l.complain(name, fmt.Errorf("addresses of %d names are known already", maxLearntNames))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), learnTimeout)
	defer cancel()
	l.teach(ctx, name, addresses, stay)
}

// note remembers the addresses until the time; false: there are too many names.
func (l *zoneLearner) note(name string, addresses []netip.Addr, end time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.learnt[name] == nil {
		if len(l.learnt) >= maxLearntNames {
			return false
		}
		l.learnt[name] = map[netip.Addr]time.Time{}
	}
	for _, a := range addresses {
		if end.After(l.learnt[name][a]) {
			l.learnt[name][a] = end
		}
	}
	l.dirty = true
	return true
}

// complain logs a failure now and then; the client gets its answer all the same,
// and may be turned away.
func (l *zoneLearner) complain(name string, err error) {
	l.mu.Lock()
	quiet := time.Since(l.told) < time.Minute
	if !quiet {
		l.told = time.Now()
	}
	l.mu.Unlock()
	if !quiet {
		l.zones.agent.log.Error("addresses of a name are not allowed", "component", "zones", "name", name, "error", err)
	}
}

// teach puts the addresses into the filter's sets.
func (l *zoneLearner) teach(ctx context.Context, name string, addresses []netip.Addr, stay time.Duration) {
	names := l.names.Load()
	if names == nil {
		return
	}
	for _, set := range names.Sets(name) {
		if err := l.zones.filter.Learn(ctx, set, addresses, stay); err != nil {
			l.complain(name, err)
		}
	}
}

// follow takes over the names of a ruleset that is in force. What was learnt
// before goes into it, and what the proxy keeps for names that are new is
// forgotten, so that they are asked for, and learnt, again.
func (l *zoneLearner) follow(ctx context.Context, r *dataplane.Ruleset) {
	var dynamic []dataplane.DynamicSet
	if r != nil {
		dynamic = r.Dynamic
	}
	if l.began && slices.EqualFunc(dynamic, l.dynamic, func(a, b dataplane.DynamicSet) bool {
		return a.Name == b.Name && slices.Equal(a.Names, b.Names)
	}) {
		return
	}
	first := !l.began
	names := zones.NamesOf(r)
	l.names.Store(&names)
	for name, addresses := range l.known(time.Now()) {
		for a, end := range addresses {
			if left := time.Until(end); left > 0 {
				l.teach(ctx, name, []netip.Addr{a}, left)
			}
		}
	}
	if proxy := l.zones.agent.proxy(); proxy != nil && !first {
		for _, d := range dynamic {
			for _, name := range d.Names {
				_, _ = proxy.Flush(strings.TrimPrefix(name, "*."))
			}
		}
	}
	l.dynamic, l.began = dynamic, true
}

// dnsLearner is who the DNS proxy tells of addresses; nil: nobody.
func (c *zonesComponent) dnsLearner() dnsproxy.Learner {
	if c.filter == nil {
		return nil
	}
	return c.learner
}

// proxy is the node's; nil when there is none.
func (a *Agent) proxy() *dnsproxy.Proxy {
	if a.dns == nil {
		return nil
	}
	return a.dns.proxy
}

// known is what was learnt and still holds; the rest is forgotten.
func (l *zoneLearner) known(now time.Time) map[string]map[netip.Addr]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]map[netip.Addr]time.Time{}
	for name, addresses := range l.learnt {
		maps.DeleteFunc(addresses, func(_ netip.Addr, end time.Time) bool { return now.After(end) })
		if len(addresses) == 0 {
			delete(l.learnt, name)
			continue
		}
		all[name] = maps.Clone(addresses)
	}
	return all
}

// state is the same for a zones.State.
func (l *zoneLearner) state() map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for name, addresses := range l.known(time.Now()) {
		all[name] = slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare)
	}
	return all
}

func (l *zoneLearner) size() (n int) {
	for _, addresses := range l.known(time.Now()) {
		n += len(addresses)
	}
	return n
}

// keep writes down what was learnt since the last time.
func (l *zoneLearner) keep() {
	l.mu.Lock()
	dirty := l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return
	}
	if err := save(l.path(), l.known(time.Now())); err != nil {
		l.zones.agent.log.Warn("addresses of names not kept", "component", "zones", "error", err)
	}
}
