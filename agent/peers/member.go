package peers

import (
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
)

// rank orders what is said of one incarnation of a node: the later wins.
type rank byte

const (
	alive   rank = 0
	suspect rank = 1
	dead    rank = 2
)

func (r rank) health() api.NodeHealth {
	switch r {
	case alive:
		return api.NodeAlive
	case suspect:
		return api.NodeSuspect
	default:
		return api.NodeDead
	}
}

// entry says something of a node. A node that is alive refutes what is said of
// it by raising its incarnation.
type entry struct {
	node        string
	incarnation uint64
	rank        rank
}

// newer tells whether e replaces o.
func (e entry) newer(o entry) bool {
	return e.incarnation > o.incarnation || e.incarnation == o.incarnation && e.rank > o.rank
}

// member is another node as this one sees it. The times are of this machine's
// monotonic clock.
type member struct {
	name    string
	address netip.AddrPort
	known   bool // somebody has told of it, or it was heard of
	entry   entry
	watched bool // by this node

	// What tells that it is alive: heard is its agent's last packet, evidence
	// that or its kernel's last answer, indirect when others reached it last.
	heard, evidence, indirect time.Time
	// refused is when a probe last found nobody, for sure.
	refused time.Time
	// since is when the present suspicion began.
	since time.Time

	pinged, probed, asked, synced time.Time
	probing                       bool
	nonces                        [8]uint64 // of the last pings
	pings                         int
	replayed                      replays

	// pending is what it has not acknowledged yet, and until when it is worth
	// telling; carried is what went with the ping of a nonce.
	pending      map[string]entry
	pendingUntil time.Time
	carried      map[uint64][]entry
}

func (m *member) health() api.NodeHealth { return m.entry.rank.health() }

// ping remembers the nonce of a ping that goes out.
func (m *member) ping(nonce uint64, carried []entry) {
	slot := &m.nonces[m.pings%len(m.nonces)]
	delete(m.carried, *slot)
	*slot = nonce
	m.pings++
	if len(carried) > 0 {
		if m.carried == nil {
			m.carried = map[uint64][]entry{}
		}
		m.carried[nonce] = carried
	}
}

// acked tells whether a ping with the nonce is under way, and forgets it; what
// it carried has arrived.
func (m *member) acked(nonce uint64) bool {
	for i := range m.nonces {
		if nonce == 0 || m.nonces[i] != nonce {
			continue
		}
		m.nonces[i] = 0
		delete(m.carried, nonce)
		return true
	}
	return false
}

// arrived takes what a ping carried off what is pending.
func (m *member) arrived(carried []entry) {
	for _, e := range carried {
		if m.pending[e.node] == e {
			delete(m.pending, e.node)
		}
	}
}

// tell puts an entry down to be told to the member.
func (m *member) tell(e entry, now time.Time) {
	if m.pending == nil {
		m.pending = map[string]entry{}
	}
	m.pending[e.node] = e
	m.pendingUntil = now.Add(tellFor)
}

// next are entries to be told, as many as one packet holds.
func (m *member) next() []entry {
	var all []entry
	for _, e := range m.pending {
		if len(all) == maxEntries-1 { // one is for the member's own
			break
		}
		all = append(all, e)
	}
	return all
}
