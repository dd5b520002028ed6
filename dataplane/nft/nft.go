// Package nft enforces zone rules with nftables: it is the sink that
// zones.Compile's rulesets go to. It owns one table, "inet weir", and touches
// nothing else, so it works beside the tables of Docker, firewalld or
// Kubernetes: a packet passes when every table lets it pass.
//
// What is addressed to the node is closed but for the ruleset's input rules.
// What the node passes on is closed, but for the ruleset's forward rules, as
// soon as one end of it lies in one of the ruleset's sets. Flows that touch no
// zone at all, such as a container's to the Internet, are left to whoever
// routes them. A flow whose destination this node translates, such as one to
// the published port of a container, is judged as what the client asked for: a
// flow to the node's own address and port.
//
// Every ruleset lets pass replies and related errors, the loopback, IPv6
// neighbour discovery and multicast listener discovery, and answers to the
// node's DHCP client. Packets that conntrack finds invalid are dropped.
//
// The rules are the kernel's once they are set: they stay when the process
// ends.
package nft

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/weirproject/weir/dataplane"
)

// Mode says what becomes of flows that no rule allows.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // they are counted and dropped; the default
	Observe Mode = "observe" // they are counted and pass, as does everything else
	Off     Mode = "off"     // there are no rules: Set removes the table
)

// Options of a Filter. The zero value enforces in the caller's own network
// namespace.
type Options struct {
	Log  *slog.Logger // nothing is logged when nil
	Mode Mode         // Enforce when empty
	// NetNS is a file descriptor of the network namespace to work in, which
	// stays the caller's; the calling thread's own when 0.
	NetNS int
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
	return nil
}

// Filter implements dataplane.Filter. Its methods may be called from several
// goroutines.
type Filter struct {
	log   *slog.Logger
	mode  Mode
	netns int

	mu   sync.Mutex // held during every change of the kernel's rules; guards what follows
	last *content   // what the kernel held after the last Set; nil before
	// generation of the namespace's ruleset at that time; 0 if unknown.
	generation uint32
}

var _ dataplane.Filter = (*Filter)(nil)

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
	return &Filter{log: o.Log.With("component", "zones", "backend", "nftables"), mode: o.Mode, netns: o.NetNS}, nil
}

// Backend implements dataplane.Filter.
func (f *Filter) Backend() string { return "nftables" }

// Set implements dataplane.Filter. It writes only what differs: new members
// change elements of sets and no rule. Everything that it writes becomes valid
// in one step, and a rule keeps its counter as long as its name and place
// stay; packets counted between the reading and the step are lost from it.
func (f *Filter) Set(ctx context.Context, r *dataplane.Ruleset) (dataplane.Changes, error) {
	if f.mode == Off {
		r = nil
	}
	wanted := &content{}
	if r != nil {
		var err error
		if wanted, err = build(r, f.mode); err != nil {
			return dataplane.Changes{}, fmt.Errorf("set nftables rules: %w", err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	changes, err := f.set(ctx, wanted)
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("set nftables rules: %w", err)
	}
	if changes != (dataplane.Changes{}) {
		f.log.Info("table applied", "written", changes.Written, "removed", changes.Removed, "repaired", changes.Repaired)
	}
	return changes, nil
}

// set makes the kernel hold the wanted content. It needs f.mu.
func (f *Filter) set(ctx context.Context, wanted *content) (dataplane.Changes, error) {
	conn, err := f.dial(ctx)
	if err != nil {
		return dataplane.Changes{}, err
	}
	defer conn.CloseLasting()
	found, generation, err := f.find(conn, wanted)
	if err != nil {
		return dataplane.Changes{}, err
	}
	changes := compare(f.last, found, wanted)
	if found.same(wanted) {
		f.last, f.generation = wanted, generation
		return changes, nil
	}
	f.generation = 0
	batches, err := write(conn.Conn, found, wanted)
	if err != nil {
		return dataplane.Changes{}, err
	}
	f.last = wanted
	if now, err := conn.generation(); err == nil && now == generation+uint32(batches) {
		f.generation = now // nobody else wrote meanwhile
	}
	if changes.Repaired > 0 {
		f.log.Warn("rules were changed by somebody else and are put right", "objects", changes.Repaired)
	}
	return changes, nil
}

// find tells what the kernel holds, and the ruleset's generation then; 0 if it
// changed all the time. When nobody has changed any table since the last Set,
// the kernel holds what that had left, and large sets need not be read. It
// needs f.mu.
func (f *Filter) find(conn *link, wanted *content) (*content, uint32, error) {
	generation, err := conn.generation()
	if err != nil {
		return nil, 0, err
	}
	if f.last != nil && f.generation == generation {
		if !f.last.exists || f.last.same(wanted) {
			return f.last, generation, nil
		}
		found := *f.last
		found.rules, err = readRules(conn.Conn) // for their counters
		return &found, generation, err
	}
	var found *content
	for range 3 {
		if found, err = read(conn.Conn); err != nil {
			return nil, 0, err
		}
		now, err := conn.generation()
		if err != nil {
			return nil, 0, err
		}
		if now == generation {
			return found, generation, nil
		}
		generation = now // somebody's change may have torn the listing apart
	}
	return found, 0, nil
}

// Cleanup removes our table from the caller's network namespace, and nothing
// else, and tells whether it was there.
func Cleanup() (bool, error) {
	f, err := New(Options{})
	if err != nil {
		return false, err
	}
	changes, err := f.set(context.Background(), &content{})
	if err != nil {
		return false, fmt.Errorf("remove nftables table: %w", err)
	}
	return changes != (dataplane.Changes{}), nil
}

// Counter is what a rule has matched: packets that open a flow, since those
// that follow are passed before.
type Counter struct {
	Packets uint64
	Bytes   uint64
}

// Counters gives the counters by name of rule, summed over the hooks and both
// address families. "default-deny" counts what no rule allows, "invalid" what
// conntrack finds invalid. It is empty without a table.
func (f *Filter) Counters() (map[string]Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conn, err := f.dial(context.Background())
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", err)
	}
	defer conn.CloseLasting()
	found, err := readRules(conn.Conn)
	if err != nil {
		return nil, fmt.Errorf("read nftables counters: %w", err)
	}
	counters := map[string]Counter{}
	for _, rules := range found {
		for _, r := range rules {
			if r.counter != nil && r.mark != "" {
				c := counters[r.name]
				counters[r.name] = Counter{c.Packets + r.counter.Packets, c.Bytes + r.counter.Bytes}
			}
		}
	}
	return counters, nil
}
