// Package nft enforces zone rules with nftables: it is the sink that
// zones.Compile's rulesets go to. It owns one table, "inet weir", and touches
// nothing else, so it works beside the tables of Docker, firewalld or
// Kubernetes: a packet passes when every table lets it pass.
//
// What a ruleset means is said at dataplane.Ruleset. A flow whose destination
// this node translates, such as one to the published port of a container, is
// judged as what the client asked for: a flow to the node's own address and
// port. Where a ruleset has no Inside there is no chain for what the node opens
// itself.
//
// The rules are the kernel's once they are set: they stay when the process
// ends. DESIGN.md says why they look as they do.
package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// Mode says what becomes of flows that no rule allows.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // they are counted and dropped; the default
	Observe Mode = "observe" // they are counted, logged and pass, as does everything else
	Off     Mode = "off"     // there are no rules: Set removes the table
)

// Options of a Filter. The zero value enforces in the caller's own network
// namespace.
type Options struct {
	Log  *slog.Logger // nothing is logged when nil
	Mode Mode         // Enforce when empty
	// NetNS is a file descriptor of the network namespace to work in, which
	// stays the caller's; that of the first calling thread when 0.
	NetNS int
	// VerifyEvery is how often a Set reads everything back from the kernel at
	// most, when somebody has changed any table since the last one. 0: always
	// then. While nobody has, nothing is read back: the kernel counts changes.
	VerifyEvery time.Duration
}

// Validate names the option that is wrong.
func (o Options) Validate() error {
	switch o.Mode {
	case "", Enforce, Observe, Off:
	default:
		return fmt.Errorf("mode: %q is not one of enforce, observe, off", o.Mode)
	}
	if o.NetNS < 0 {
		return fmt.Errorf("network namespace: %d is not a file descriptor", o.NetNS)
	}
	if o.VerifyEvery < 0 {
		return fmt.Errorf("verify every: %s is negative", o.VerifyEvery)
	}
	return nil
}

// Filter implements dataplane.Filter and dataplane.Learner. Its methods may be
// called from several goroutines.
type Filter struct {
	log   *slog.Logger
	mode  Mode
	netns int
	every time.Duration

	mu   sync.Mutex // held during every change of the kernel's rules; guards what follows
	last *build     // what the kernel held after the last Set; nil before
	// generation of the namespace's ruleset at that time; 0 if unknown.
	generation uint32
	verified   time.Time // when all was read back the last time
	// stays is when addresses leave the sets that learn, by the kernel's name of
	// the set.
	stays   map[string]map[netip.Addr]time.Time
	timeful ternary // whether the kernel can compare times
	kept    *link   // for the next conversation
}

type ternary int8

const (
	unknown ternary = iota
	no
	yes
)

var (
	_ dataplane.Filter  = (*Filter)(nil)
	_ dataplane.Learner = (*Filter)(nil)
)

// New checks the options. It does not touch the kernel.
func New(o Options) (*Filter, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("nftables options: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Mode == "" {
		o.Mode = Enforce
	}
	return &Filter{
		log: o.Log.With("component", "zones", "backend", "nftables"), mode: o.Mode, netns: o.NetNS, every: o.VerifyEvery,
		stays: map[string]map[netip.Addr]time.Time{},
	}, nil
}

// Backend implements dataplane.Filter.
func (f *Filter) Backend() string { return "nftables" }

// Set implements dataplane.Filter. It writes only what differs: new members
// change elements of sets and no rule. Everything that it writes becomes valid
// in one step; counters go on counting as long as their rule's name stays.
func (f *Filter) Set(ctx context.Context, r *dataplane.Ruleset) (dataplane.Changes, error) {
	if f.mode == Off {
		r = nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	changes, err := f.set(ctx, r)
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("set nftables rules: %w", err)
	}
	if changes != (dataplane.Changes{}) {
		f.log.Info("table applied", "written", changes.Written, "removed", changes.Removed, "repaired", changes.Repaired)
	}
	return changes, nil
}

// set makes the kernel hold the ruleset. It needs f.mu.
func (f *Filter) set(ctx context.Context, r *dataplane.Ruleset) (changes dataplane.Changes, err error) {
	conn, err := f.open(ctx)
	if err != nil {
		return dataplane.Changes{}, err
	}
	defer func() { f.leave(conn, err) }()
	var b *builder
	if r != nil {
		if b = newBuilder(r, f.mode, f.last); b.err != nil {
			return dataplane.Changes{}, b.err
		}
		b.noTime = !f.canTime(conn, r)
	}
	changes, err = f.apply(conn, b, false)
	if err != nil && !errors.Is(err, errRefused) {
		// Somebody changed it since it was read.
		f.generation, f.verified = 0, time.Time{}
		changes, err = f.apply(conn, b, true)
	}
	return changes, err
}

// errRefused is what no other try would mend.
var errRefused = errors.New("")

// apply writes what differs from what is found. anew makes it make the table
// anew where that cannot be changed.
func (f *Filter) apply(conn *link, b *builder, anew bool) (dataplane.Changes, error) {
	found, generation, err := f.find(conn)
	if err != nil {
		return dataplane.Changes{}, err
	}
	wanted := &build{content: &content{}}
	if b != nil {
		if err := b.finish(found, f.last); err != nil {
			return dataplane.Changes{}, fmt.Errorf("%w%w", err, errRefused)
		}
		wanted = &b.build
	}
	var last *content
	if f.last != nil {
		last = f.last.content
	}
	changes := compare(last, found, wanted.content)
	if found.same(wanted.content) {
		f.keep(wanted, generation)
		return changes, nil
	}
	f.generation = 0
	w := newWriter(conn)
	w.stays = f.stays
	if err = w.write(found, wanted.content); err != nil && anew {
		w = newWriter(conn)
		w.stays = f.stays
		err = w.recreate(wanted.content)
	}
	if err != nil {
		return dataplane.Changes{}, err
	}
	f.keep(wanted, 0)
	if now, err := conn.generation(); err == nil && generation != 0 && now == generation+uint32(w.batches) {
		f.generation = now // nobody else wrote meanwhile
	}
	if changes.Repaired > 0 {
		f.log.Warn("rules were changed by somebody else and are put right", "objects", changes.Repaired)
	}
	return changes, nil
}

// keep remembers what the kernel holds now. It needs f.mu.
func (f *Filter) keep(b *build, generation uint32) {
	f.last, f.generation = b, generation
	for name := range f.stays {
		if b.sets[name] == nil {
			delete(f.stays, name)
		}
	}
	// Forget what sets came from: it would keep all of them alive.
	for _, s := range b.sources {
		s.from, s.stale, s.fresh = nil, nil, nil
	}
	for _, p := range b.parts {
		p.from, p.stale, p.fresh = nil, nil, nil
	}
	for _, d := range b.hooks {
		for _, m := range d.maps {
			m.from, m.stale, m.fresh = nil, nil, nil
		}
	}
}

// Cleanup removes our table from the caller's network namespace, and nothing
// else, and tells whether it was there.
func Cleanup() (bool, error) {
	f, err := New(Options{})
	if err != nil {
		return false, err
	}
	changes, err := f.Set(context.Background(), nil)
	if err != nil {
		return false, fmt.Errorf("clean up: %w", err)
	}
	return changes != (dataplane.Changes{}), nil
}
