package nft

import (
	"time"

	"github.com/weirproject/weir/dataplane"
)

// find tells what the kernel holds, and the ruleset's generation then; 0 if that
// is not known for sure: it changed all the time, or somebody has changed a
// table and it is too early to look again. When nobody has, the kernel holds
// what the last Set had left. It needs f.mu.
func (f *Filter) find(conn *link) (*content, uint32, error) {
	generation, err := conn.generation()
	if err != nil {
		return nil, 0, err
	}
	if f.last != nil && f.generation == generation {
		return f.last.content, generation, nil
	}
	if f.last != nil && f.every > 0 && time.Since(f.verified) < f.every {
		return f.last.content, 0, nil
	}
	for range 3 {
		found, stays, err := read(conn)
		if err != nil {
			return nil, 0, err
		}
		now, err := conn.generation()
		if err != nil {
			return nil, 0, err
		}
		if now == generation {
			f.verified = time.Now()
			f.remember(stays)
			return found, generation, nil
		}
		generation = now // somebody's change may have torn the listing apart
	}
	found, stays, err := read(conn)
	f.remember(stays)
	return found, 0, err
}

// canTime tells whether the kernel can compare times, if a rule expires.
func (f *Filter) canTime(conn *link, r *dataplane.Ruleset) bool {
	expires := false
	for _, rules := range [][]dataplane.FilterRule{r.Input, r.Forward, r.Output} {
		for _, rule := range rules {
			expires = expires || !rule.Expires.IsZero()
		}
	}
	if !expires {
		return true
	}
	if f.timeful == unknown {
		f.timeful = yes
		if try(conn, before(time.Unix(1, 0))) != nil {
			f.timeful = no
			f.log.Info("the kernel cannot compare times (before 5.4): rules expire with the next ruleset only")
		}
		f.generation = 0
	}
	return f.timeful == yes
}
