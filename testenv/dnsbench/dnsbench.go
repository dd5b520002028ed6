// Package dnsbench measures the DNS proxy beside other servers: questions about
// the cluster's names, forwarded ones, and what happens under too many, broken
// ones and changes.
//
// Every server is a process of its own at a loopback address of its own. In each
// round the client (dnsperf) asks one after the other, and ratios are of the same
// round. The CPU time is what the kernel says that the server's processes took.
package dnsbench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

// Options of Run. Zero values stand for what the documentation's figures were
// measured with.
type Options struct {
	Rounds   int           // of all servers; 5
	Each     time.Duration // of asking, for each server and kind of question in a round; 3 s
	Names    int           // of the large zone; 100,000
	Overload time.Duration // of too many questions; 30 s
	Only     []string      // parts to measure; all when empty
	Peers    string        // folder of the other servers' programs; bin/peers
	Log      *slog.Logger  // may be nil
}

// Parts that Only may name.
var Parts = []string{"small", "large", "memory", "cached", "forwarded", "overload", "hostile", "changes"}

func (o Options) withDefaults() Options {
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Each == 0 {
		o.Each = 3 * time.Second
	}
	if o.Names == 0 {
		o.Names = 100_000
	}
	if o.Overload == 0 {
		o.Overload = 30 * time.Second
	}
	if o.Peers == "" {
		o.Peers = "bin/peers"
	}
	if len(o.Only) == 0 {
		o.Only = Parts
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Rounds < 0 || o.Rounds > 1000:
		return fmt.Errorf("options: Rounds %d is not within 1 to 1000", o.Rounds)
	case o.Each < 0 || o.Each > time.Minute || o.Each > 0 && o.Each < 100*time.Millisecond:
		return fmt.Errorf("options: Each %s is not within 100ms to 1m", o.Each)
	case o.Names < 0 || o.Names > 1_000_000:
		return fmt.Errorf("options: Names %d is not within 1 to 1000000", o.Names)
	case o.Overload < 0 || o.Overload > time.Hour:
		return fmt.Errorf("options: Overload %s is not within 0 to 1h", o.Overload)
	}
	for _, part := range o.Only {
		if !slices.Contains(Parts, part) {
			return fmt.Errorf("options: Only: there is no part %q, but %v", part, Parts)
		}
	}
	return nil
}

// Result of a run.
type Result struct {
	Rows []Row `json:"rows"`
	Bars []Bar `json:"bars"`
	// Missing servers were not there, or did not run, and why.
	Missing []string `json:"missing,omitempty"`
}

// Row is one server's figures for one kind of question.
type Row struct {
	Part, Kind, Server string
	Rate, CPU          Spread  // answers per second, microseconds of CPU per answer
	Lost               float64 // the worst share of lost questions
	PSS                uint64  // bytes, after its questions
	rounds             []measurement
}

// Bar is a demand and what came of it.
type Bar struct {
	What string
	Want float64
	Most bool // got must be at most Want; else at least
	Got  Spread
	Unit string
}

// Met tells whether the median meets the demand.
func (b Bar) Met() bool {
	if b.Most {
		return b.Got.Median <= b.Want
	}
	return b.Got.Median >= b.Want
}

// Run measures the parts that the options name. What could be measured is in the
// result also when there is an error.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := &Result{}
	if err := o.Validate(); err != nil {
		return r, err
	}
	o = o.withDefaults()
	dir, err := os.MkdirTemp("", "weir-dnsbench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	b := &bed{dir: dir, peers: o.Peers}
	if _, err := b.find("dnsperf"); err != nil {
		return r, errors.New("dnsperf is not there: scripts/bench-packages unpacks it")
	}
	for _, part := range Parts {
		if !slices.Contains(o.Only, part) {
			continue
		}
		o.Log.Info("measuring", "part", part)
		if err := r.part(ctx, o, b, part); err != nil {
			return r, fmt.Errorf("measure %s: %w", part, err)
		}
	}
	r.fall()
	return r, nil
}

func (r *Result) part(ctx context.Context, o Options, b *bed, part string) error {
	switch part {
	case "small":
		return r.cluster(ctx, o, b, part, 10)
	case "large":
		return r.cluster(ctx, o, b, part, o.Names)
	case "cached", "forwarded":
		return r.outside(ctx, o, b, part)
	case "memory":
		return r.size(ctx, o, b)
	case "overload":
		return r.overload(ctx, o, b)
	case "hostile":
		return r.hostile(ctx, o, b)
	default:
		return r.changes(ctx, o, b)
	}
}
