package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Learn implements dataplane.Learner. It returns at once when the kernel has
// all the addresses for long enough. Stays are counted in whole seconds,
// rounded up.
func (f *Filter) Learn(ctx context.Context, name string, addresses []netip.Addr, ttl time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dynamic[name] {
		return fmt.Errorf("learn addresses: the ruleset has no dynamic set %q", name)
	}
	if ttl <= 0 {
		return fmt.Errorf("learn addresses into set %s: a stay of %s is too short", name, ttl)
	}
	now := time.Now()
	seconds := int64((ttl + time.Second - 1) / time.Second)
	seconds = min(seconds, 2_147_483) // what ipset takes
	var script strings.Builder
	for _, a := range addresses {
		a = a.Unmap().WithZone("")
		first := setName(name, a.Is6())
		if !a.IsValid() {
			return fmt.Errorf("learn addresses into set %s: one is not valid", name)
		}
		if now.Add(ttl).After(f.stays[first][a]) {
			fmt.Fprintf(&script, "add %s %s timeout %d\n", first, a, seconds)
		}
	}
	if err := f.ipset(ctx, script.String()); err != nil {
		return fmt.Errorf("learn addresses into set %s: %w", name, err)
	}
	for _, a := range addresses {
		a = a.Unmap().WithZone("")
		if first := setName(name, a.Is6()); now.Add(ttl).After(f.stays[first][a]) {
			f.stay(first, a, now.Add(ttl))
		}
	}
	return nil
}

// pruneAbove is how many remembered addresses are worth a look for old ones.
const pruneAbove = 4096

// stay notes until when the address is in the set. It needs f.mu.
func (f *Filter) stay(first string, a netip.Addr, end time.Time) {
	if f.stays[first] == nil {
		f.stays[first] = map[netip.Addr]time.Time{}
	}
	if f.stays[first][a] = end; len(f.stays[first])%pruneAbove == 0 {
		for a, end := range f.stays[first] {
			if time.Now().After(end) {
				delete(f.stays[first], a)
			}
		}
	}
}

// remember takes over what was found in a set that learns, such as the words
// of: add weir4-names 192.0.2.1 timeout 30.
func (f *Filter) remember(name string, words []string) {
	a, err := netip.ParseAddr(words[2])
	i := slices.Index(words, "timeout")
	if err != nil || i < 0 || i+1 >= len(words) {
		return
	}
	if left, err := strconv.Atoi(words[i+1]); err == nil && f.stays[name][a].IsZero() {
		f.stay(name, a, time.Now().Add(time.Duration(left)*time.Second))
	}
}
