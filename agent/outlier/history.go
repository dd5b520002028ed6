package outlier

import "time"

const (
	// settle is how long it takes, at least, until a connection that has not
	// failed counts as opened; twice as long at most. An unreachable host on
	// the same network is known after 3 s (EHOSTUNREACH), and clients rarely wait
	// longer than 10 s for a silent one.
	settle = 15 * time.Second
	// probe is how long a backend that came back is on probation, from its
	// first connection on.
	probe = 10 * time.Second
)

// history is what the counters have told of a backend, judged by three rules.
//
// Counters do not tell which connection failed, nor that one opened: only that
// it was begun, and, later, that it failed. "In a row" so means:
//
// A streak is what happened since the last interval in which connections were
// begun and none failed. It is bad with as many failures as the limit that make
// up half of its connections: a refused connection fails in the interval in
// which it is begun, and with many connections a lower share is a backend that
// is overloaded rather than dead, which to eject would overload the others.
//
// A host that answers nothing fails its connections seconds after they were
// begun. When clients are few, intervals with beginnings alone and with failures
// alone alternate, and each of the former ends a streak. Therefore doubt counts
// the failures since the last connection that has certainly opened (that is,
// has not failed for settle), against the connections whose end is still open.
// It is bad with as many failures as the limit and three for each of the latter:
// where successes and failures alternate, they are as many.
//
// A backend on probation is bad at its first failure, when half of the
// connections since its return have failed. Failures beyond the connections
// begun since are left over from before, and do not count.
type history struct {
	streak, probed tally
	probation      bool
	probeEnds      time.Time // zero before the first connection

	doubt      uint64    // failures since a connection has certainly opened
	young, old uint64    // connections without an end: of this settle, of the one before
	turn       time.Time // when young ones become old
}

// tally counts connections, and the failures among them.
type tally struct{ connections, failures uint64 }

// add takes one interval in.
func (h *history) add(now time.Time, connections, failures uint64) {
	if h.probation {
		if h.probeEnds.IsZero() && connections > 0 {
			h.probeEnds = now.Add(probe)
		}
		h.probed.connections += connections
		h.probed.failures = min(h.probed.failures+failures, h.probed.connections)
		if !h.probeEnds.IsZero() && !now.Before(h.probeEnds) {
			*h = history{}
		}
		return
	}
	if connections > 0 && failures == 0 {
		h.streak = tally{}
	} else {
		h.streak.failures += failures
		// A failure that exceeds them is of a connection from before the streak.
		h.streak.connections = max(h.streak.connections+connections, h.streak.failures)
	}
	h.turnOver(now)
	h.young += connections
	h.doubt += failures
	ended := min(failures, h.old)
	h.old -= ended
	h.young -= min(failures-ended, h.young)
}

// turnOver lets connections grow old, and settles those that were.
func (h *history) turnOver(now time.Time) {
	switch late := now.Sub(h.turn); {
	case h.turn.IsZero():
	case late < 0:
		return
	case late < settle:
		if h.old > 0 {
			h.doubt = 0
		}
		h.old, h.young = h.young, 0
	default: // nobody looked for long
		if h.old+h.young > 0 {
			h.doubt = 0
		}
		h.old, h.young = 0, 0
	}
	h.turn = now.Add(settle)
}

// verdict tells whether the backend is bad, and how many of its last connections
// failed.
func (h *history) verdict(limit uint64) (failed, of uint64, bad bool) {
	switch {
	case h.probation:
		p := h.probed
		return p.failures, p.connections, p.failures > 0 && p.failures >= p.connections-p.failures
	case h.streak.failures >= limit && h.streak.failures >= h.streak.connections-h.streak.failures:
		return h.streak.failures, h.streak.connections, true
	default:
		open := h.old + h.young
		return h.doubt, h.doubt + open, h.doubt >= limit && h.doubt/3 >= open
	}
}
