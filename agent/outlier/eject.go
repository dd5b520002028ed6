package outlier

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/weirproject/weir/api"
)

// maxLonger bounds how many times its first length an ejection may take.
const maxLonger = 10

// backend is one server of a watched service.
type backend struct {
	address               netip.AddrPort
	connections, failures uint64 // its counters at the last Observe
	round                 uint64 // of the last Observe that had it
	up                    bool   // apart from ejections
	history               history

	ejected bool
	until   time.Time // when the ejection ends
	reason  string
	since   time.Time // of the last ejection or return
	row     int       // ejections in a row
	calm    time.Time // since when it behaves, while row is not zero
}

// take brings a backend up to date and tells whether its ejection is over.
func (b *backend) take(now time.Time, ejection time.Duration, c Counter) (over bool) {
	connections, failures := c.Connections-b.connections, c.Failures-b.failures
	if c.Connections < b.connections || c.Failures < b.failures {
		// They began anew some time within the interval: nothing is known of it.
		connections, failures = 0, 0
	}
	if c.Up && !b.up {
		// What failed before it came up says nothing of it now.
		b.history = history{probation: b.history.probation}
	}
	b.connections, b.failures, b.up = c.Connections, c.Failures, c.Up
	if b.ejected {
		// What fails now was begun before.
		return !now.Before(b.until)
	}
	b.history.add(now, connections, failures)
	for ; b.row > 0 && now.Sub(b.calm) >= ejection; b.row-- {
		b.calm = b.calm.Add(ejection)
	}
	return false
}

// worst returns the backend with the most failures of those that have to go and
// may: never more than the percentage allows, and never the last one that is up.
func (w *watched) worst(o api.Outlier) (worst *backend) {
	if w.ejected >= max(1, len(w.backends)*o.MaxEjected/100) {
		return nil
	}
	serving := 0
	var most uint64
	for _, b := range w.backends {
		if !b.up || b.ejected {
			continue
		}
		serving++
		failed, _, bad := b.history.verdict(uint64(o.Failures))
		if bad && (worst == nil || failed > most || failed == most && b.address.Compare(worst.address) < 0) {
			worst, most = b, failed
		}
	}
	if serving < 2 {
		return nil
	}
	return worst
}

func (w *watched) eject(now time.Time, b *backend, o api.Outlier) {
	failed, of, _ := b.history.verdict(uint64(o.Failures))
	b.row = min(b.row+1, maxLonger)
	length := time.Duration(b.row) * o.Ejection.Std()
	b.ejected, b.since, b.until = true, now, now.Add(length)
	b.reason = fmt.Sprintf("ejected for %s until %s: %d of %d connections failed", length, b.until.Format(time.TimeOnly), failed, of)
	w.ejected++
}

// readmit ends an ejection. The backend is on probation from then on.
func (w *watched) readmit(now time.Time, b *backend) {
	b.ejected, b.reason, b.since, b.calm = false, "", now, now
	b.history = history{probation: true}
	w.ejected--
}

// lastHope returns the ejected backend that would come back first when no other
// is up any more: the others went down since. One that fails now and then is
// better than none.
func (w *watched) lastHope() (first *backend) {
	if w.ejected == 0 {
		return nil
	}
	for _, b := range w.backends {
		switch {
		case b.up && !b.ejected:
			return nil
		case b.up && (first == nil || b.until.Before(first.until) || b.until.Equal(first.until) && b.address.Compare(first.address) < 0):
			first = b
		}
	}
	return first
}
