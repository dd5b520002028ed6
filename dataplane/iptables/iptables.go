// Package iptables enforces zone rules with iptables, ip6tables and ipset, on
// hosts that cannot do nftables. It owns the chains whose names start with
// "WEIR-", one jump to each from a built-in chain, and the sets whose names
// start with "weir4-" and "weir6-", and touches nothing else. What its rules
// accept returns to the built-in chain: a packet passes when the rules of
// Docker, firewalld or Kubernetes let it pass too.
//
// What a ruleset means is said at dataplane.Ruleset. As with nftables, a flow
// whose destination this node translates is judged as what the client asked
// for. Rules are tried one after the other: a hook's cost grows with its rules,
// not with the members of its sets.
//
// The rules are the kernel's once they are set: they stay when the process
// ends. DESIGN.md says why they look as they do.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/verdict"
)

// Options of a Filter. The zero value enforces in the caller's own network
// namespace, with the host's own iptables.
type Options struct {
	Log *slog.Logger // nothing is logged when nil
	// Observe counts and logs what no rule allows, and drops nothing.
	Observe bool
	// NetNS is a file descriptor of the network namespace to work in, which
	// stays the caller's; the calling thread's own when 0.
	NetNS int
	// Variant of the commands: "legacy", "nft", or empty for what the host calls
	// iptables. Rules made with one are not seen by the other.
	Variant string
	// VerifyEvery is how often a Set reads the members of all sets back; one that
	// comes sooner trusts sets whose version it knows. 0: always.
	VerifyEvery time.Duration
}

// Validate names the option that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Variant != "" && o.Variant != "legacy" && o.Variant != "nft":
		return fmt.Errorf("variant: %q is not one of legacy, nft", o.Variant)
	case o.NetNS < 0:
		return fmt.Errorf("network namespace: %d is not a file descriptor", o.NetNS)
	case o.VerifyEvery < 0:
		return fmt.Errorf("verify every: %s is negative", o.VerifyEvery)
	}
	return nil
}

// Filter implements dataplane.Filter and dataplane.Learner. Its methods may be
// called from several goroutines.
type Filter struct {
	options  Options
	log      *slog.Logger
	commands commands

	mu       sync.Mutex         // held during every change of the kernel's rules; guards what follows
	last     *state             // what the kernel held after the last Set; nil before
	dynamic  map[string]bool    // the sets that learn, by name in the ruleset
	verified time.Time          // when all members were read back the last time
	lost     map[string]Counter // what rules have counted before their counters were lost
	// stays is when addresses leave the sets that learn.
	stays map[string]map[netip.Addr]time.Time
}

var (
	_ dataplane.Filter  = (*Filter)(nil)
	_ dataplane.Learner = (*Filter)(nil)
)

// New checks the options. It does not touch the kernel.
func New(o Options) (*Filter, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("iptables options: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Filter{
		options: o, log: o.Log.With("component", "zones", "backend", "iptables"),
		commands: commands{netns: o.NetNS, variant: o.Variant}, stays: map[string]map[netip.Addr]time.Time{},
		lost: map[string]Counter{},
	}, nil
}

// Backend implements dataplane.Filter.
func (f *Filter) Backend() string { return "iptables" }

// Set implements dataplane.Filter. New members change elements of sets and no
// rule. Rules change in one step for each address family; when sets change
// together with rules, new ones are made beside the old ones and the new rules
// look into these. An error names the rule that cannot be made.
func (f *Filter) Set(ctx context.Context, r *dataplane.Ruleset) (dataplane.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes, err := f.set(ctx, r)
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("set iptables rules: %w", err)
	}
	if changes != (dataplane.Changes{}) {
		f.log.Info("rules applied", "written", changes.Written, "removed", changes.Removed, "repaired", changes.Repaired)
	}
	return changes, nil
}

// set makes the kernel hold the ruleset. It needs f.mu.
func (f *Filter) set(ctx context.Context, r *dataplane.Ruleset) (dataplane.Changes, error) {
	found, err := f.find(ctx, r)
	if err != nil {
		return dataplane.Changes{}, err
	}
	wanted := newState()
	if r != nil {
		if wanted, err = f.want(found, r); err != nil {
			return dataplane.Changes{}, err
		}
	}
	changes := compare(f.last, found, wanted)
	if err := f.write(ctx, found, wanted); err != nil {
		f.last, f.verified = nil, time.Time{}
		return dataplane.Changes{}, err
	}
	if changes.Repaired > 0 {
		f.log.Warn("rules were changed by somebody else and are put right", "objects", changes.Repaired)
	}
	f.last, f.dynamic = wanted, map[string]bool{}
	maps.DeleteFunc(f.stays, func(name string, _ map[netip.Addr]time.Time) bool { return wanted.sets[name] == nil })
	if r != nil {
		for _, d := range r.Dynamic {
			f.dynamic[d.Name] = true
		}
	}
	return changes, nil
}

// Counter is what a rule has matched: packets that open a flow, since those
// that follow are passed before.
type Counter = verdict.Counter

// Counters gives the counters by name of rule, summed over the hooks and both
// address families, with those of dataplane.DefaultDeny, Invalid and Spoofed.
// It is empty without our chains.
func (f *Filter) Counters() (map[string]Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := newState()
	if err := f.findRules(context.Background(), found); err != nil {
		return nil, fmt.Errorf("read iptables counters: %w", err)
	}
	counters := found.counters()
	for name, lost := range f.lost {
		if c, there := counters[name]; there {
			counters[name] = Counter{Packets: c.Packets + lost.Packets, Bytes: c.Bytes + lost.Bytes}
		}
	}
	return counters, nil
}

// Drop is a packet that opens a flow and that a rule has dropped, or accepted
// if it is one that logs.
type Drop = verdict.Drop

// prefixBytes is what the kernel takes for a prefix, with a last 0.
const prefixBytes = 64

// Drops hears what the rules drop, and accept and log, from now on until the
// context ends; then the channel is closed. At most 10 packets a second of each
// rule are reported. One listener for each network namespace can be there.
func (f *Filter) Drops(ctx context.Context) (<-chan Drop, error) {
	return verdict.Listen(ctx, f.options.NetNS, f.log)
}

// Cleanup removes our chains and sets from the caller's network namespace, and
// nothing else, with each variant of iptables that the host has, and tells
// whether there were any.
func Cleanup(ctx context.Context) (bool, error) {
	removed := false
	var faults []error
	var last *Filter
	for _, variant := range []string{"legacy", "nft", ""} {
		f, err := New(Options{Variant: variant})
		if err != nil {
			return removed, err
		}
		if !f.commands.have() {
			continue
		}
		last = f
		found := newState()
		if err := f.findRules(ctx, found); err != nil {
			faults = append(faults, fmt.Errorf("clean up: %w", err))
			continue
		}
		n, _ := found.diff(newState())
		removed = removed || n > 0
		if err := f.write(ctx, found, newState()); err != nil {
			faults = append(faults, fmt.Errorf("clean up: %w", err))
		}
	}
	if last != nil { // no rule looks into the sets any more
		changes, err := last.Set(ctx, nil)
		removed = removed || changes != (dataplane.Changes{})
		if err != nil {
			faults = append(faults, fmt.Errorf("clean up: %w", err))
		}
	}
	return removed, errors.Join(faults...)
}
