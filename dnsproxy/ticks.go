package dnsproxy

import (
	"time"
)

// rearm sets the timer to what is due first.
func (l *flight) rearm(now int64) {
	due := min(l.next, l.began+int64(l.table.limit))
	if l.old != nil && !l.given {
		due = min(due, l.began+int64(l.table.staleIn))
	}
	wait := time.Duration(max(0, due-now))
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.tick)
		return
	}
	l.timer.Reset(wait)
}

// tick does what is due.
func (l *flight) tick() {
	defer l.table.guard("waiting for upstreams")
	l.mu.Lock()
	defer l.unlock()
	now := l.table.clock()
	l.blameSilent(now)
	switch {
	case l.landed:
		for _, t := range l.tries {
			t.end()
		}
		return
	case now >= l.began+int64(l.table.limit):
		l.finish(nil, now)
		return
	case l.old != nil && !l.given && now >= l.began+int64(l.table.staleIn):
		l.giveOld()
	}
	if now < l.next {
		l.rearm(now)
		return
	}
	last := l.tries[len(l.tries)-1]
	if !last.over && !last.blamed && !l.mayHedge(last, now) {
		l.next = last.sent + int64(l.table.forward.attempt)
		l.rearm(now)
		return
	}
	l.askNext(now)
}

// blameSilent blames, once, those who took longer than an attempt's length.
func (l *flight) blameSilent(now int64) {
	for _, t := range l.tries {
		if !t.over && !t.blamed && now-t.sent >= int64(l.table.forward.attempt) {
			t.blamed = true
			t.up.blame(1, now)
			l.table.forward.suspect(t.up, now)
		}
	}
}

// end gives a try up that nobody waits for.
func (t *try) end() {
	if !t.over {
		t.over = true
		t.call.cancel()
	}
}

// mayHedge tells whether another upstream may be asked while the last one
// thinks. One from which nothing has come since is suspect, and counts as
// dearer from now on. Else the hedges have to stay within their budget.
func (l *flight) mayHedge(last *try, now int64) bool {
	if last.up.silentSince(last.sent) {
		last.up.blame(lateWeight, now)
	} else if !l.table.forward.spend() {
		return false
	}
	if i := l.idle(now); i >= 0 {
		l.order[i].hedged.Add(1)
	}
	return true
}
