package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// pruneAbove is how many remembered addresses are worth a look for old ones.
const pruneAbove = 4096

// Learn implements dataplane.Learner. It returns at once when the kernel has
// all the addresses for long enough.
func (f *Filter) Learn(ctx context.Context, name string, addresses []netip.Addr, ttl time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || f.last.sets[setOf(name, false)] == nil || f.last.sets[setOf(name, false)].kind != learnt {
		return fmt.Errorf("learn addresses: the ruleset has no dynamic set %q", name)
	}
	if ttl < time.Millisecond {
		return fmt.Errorf("learn addresses into set %s: a stay of %s is too short", name, ttl)
	}
	now := time.Now()
	var longer []netip.Addr
	for _, a := range addresses {
		a = a.Unmap().WithZone("")
		if !a.IsValid() {
			return fmt.Errorf("learn addresses into set %s: one is not valid", name)
		}
		if now.Add(ttl).After(f.stays[setOf(name, a.Is6())][a]) {
			longer = append(longer, a)
		}
	}
	if len(longer) == 0 {
		return nil
	}
	conn, err := f.open(ctx)
	if err != nil {
		return fmt.Errorf("learn addresses into set %s: %w", name, err)
	}
	err = f.prolong(conn, name, longer, now, ttl)
	f.leave(conn, err)
	if err != nil {
		return fmt.Errorf("learn addresses into set %s: %w", name, inWords(err))
	}
	return nil
}

// prolong writes the addresses. It needs f.mu.
func (f *Filter) prolong(conn *link, name string, addresses []netip.Addr, now time.Time, ttl time.Duration) error {
	generation, known := f.generation, f.generation != 0
	batches, err := stay(conn, name, addresses, ttl, func(a netip.Addr) bool {
		end, there := f.stays[setOf(name, a.Is6())][a]
		return there && now.Before(end)
	})
	if err != nil && len(addresses) > 0 {
		// One has left meanwhile, or somebody has changed the set: one by one.
		for _, a := range addresses {
			if _, err := stay(conn, name, []netip.Addr{a}, ttl, func(netip.Addr) bool { return true }); err == nil {
				continue
			}
			if _, err := stay(conn, name, []netip.Addr{a}, ttl, func(netip.Addr) bool { return false }); err != nil {
				return err
			}
		}
		known = false
	}
	for _, a := range addresses {
		first := setOf(name, a.Is6())
		if f.stays[first] == nil {
			f.stays[first] = map[netip.Addr]time.Time{}
		}
		f.stays[first][a] = now.Add(ttl)
		if len(f.stays[first]) > pruneAbove && len(f.stays[first])%pruneAbove == 0 {
			maps.DeleteFunc(f.stays[first], func(_ netip.Addr, end time.Time) bool { return now.After(end) })
		}
	}
	f.generation = 0
	if after, err := conn.generation(); known && err == nil && after == generation+batches {
		f.generation = after // nobody else wrote meanwhile
	}
	return nil
}

// stay puts the addresses into the set, in one step. Those that are there must
// leave it first: before Linux 6.12 adding an element again changes nothing.
func stay(conn *link, name string, addresses []netip.Addr, ttl time.Duration, there func(netip.Addr) bool) (batches uint32, err error) {
	w := newWriter(conn)
	for _, a := range addresses {
		s := setOf(name, a.Is6())
		if there(a) {
			w.elements(unix.NFT_MSG_DELSETELEM, s, 0, []nftables.SetElement{{Key: a.AsSlice()}})
		}
		w.elements(unix.NFT_MSG_NEWSETELEM, s, 0, []nftables.SetElement{{Key: a.AsSlice(), Timeout: ttl}})
	}
	err = w.flush()
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return uint32(w.batches), err
}

// remember takes over what was found in the sets that learn. Of sets that are
// gone it keeps what they had, so that they are made with it. It needs f.mu.
func (f *Filter) remember(found map[string]map[netip.Addr]time.Time) {
	maps.Copy(f.stays, found)
}
