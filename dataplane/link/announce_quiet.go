package link

import (
	"sync/atomic"
	"time"
)

// standstill notices that the process did not run for a while, because it was
// stopped or starved. Another node has taken the addresses over then, and this
// one must say nothing before its election has had time to notice, too.
type standstill struct {
	epoch time.Time    // the wall clock may step, this one's monotonic reading does not
	beat  atomic.Int64 // when the loop came by last, in ns since epoch; 0: never
	until atomic.Int64 // silent until then
}

// A loop that comes by every beatInterval has stood still when it has not for
// standLimit; then it is silent for hush.
const (
	beatInterval = 100 * time.Millisecond
	standLimit   = 400 * time.Millisecond
	hush         = 200 * time.Millisecond
)

// mark is called by the loop each time it comes by.
func (s *standstill) mark(now time.Time) {
	at := int64(now.Sub(s.epoch))
	if last := s.beat.Swap(at); last != 0 && at-last > int64(standLimit) {
		s.until.Store(at + int64(hush))
	}
}

// silent tells whether nothing may be said now.
func (s *standstill) silent(now time.Time) bool {
	at := int64(now.Sub(s.epoch))
	return at < s.until.Load() || at-s.beat.Load() > int64(standLimit)
}
