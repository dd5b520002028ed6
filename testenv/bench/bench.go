// Package bench measures virtual IPs beside what else one could use, in one
// run: clients in namespaces of their own, one for each way to a backend, all
// behind one router and in front of one server. It also measures how fast the
// balancer takes changes, and counts what breaks while it is changed, killed
// and upgraded under load.
//
// Everything lives in a lab of package testenv. What a user runs is weir-bench;
// package load makes the traffic.
package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"time"

	"github.com/weirproject/weir/testenv/bench/load"
)

// Options of Compare.
type Options struct {
	Rounds int           // of all variants; 7 when zero
	Each   time.Duration // of traffic for each variant and kind of traffic in a round; 2 s when zero
	// Only names variants and kinds of traffic to measure; empty: all. The
	// direct connection, which ratios are against, is always measured.
	Only     []string
	Services int // of the larger size; 10,000 when zero
	Backends int // of each service; 100 when zero
	Log      *slog.Logger
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	if o.Rounds == 0 {
		o.Rounds = 7
	}
	if o.Each == 0 {
		o.Each = 2 * time.Second
	}
	if o.Services == 0 {
		o.Services = 10000
	}
	if o.Backends == 0 {
		o.Backends = 100
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names the field that is wrong, and what Only may hold.
func (o Options) Validate() error {
	if o.Rounds < 0 || o.Each < 0 {
		return fmt.Errorf("options: Rounds %d and Each %s must not be negative", o.Rounds, o.Each)
	}
	if o.Services < 0 || o.Services > maxServices {
		return fmt.Errorf("options: Services %d is not 1 to %d", o.Services, maxServices)
	}
	if n := o.withDefaults(); o.Backends < 0 || n.Services*n.Backends > maxBackends {
		return fmt.Errorf("options: %d services of %d Backends are more than %d", n.Services, n.Backends, maxBackends)
	}
	known := []string{}
	for _, v := range variants(Options{Services: 1, Backends: 1}) {
		known = append(known, v.name)
	}
	for _, op := range operations {
		known = append(known, string(op))
	}
	for _, name := range o.Only {
		if !slices.Contains(known, name) {
			return fmt.Errorf("options: Only: %q is neither a variant nor a kind of traffic; these are %v", name, known)
		}
	}
	return nil
}

// operations in the order in which they are measured and shown.
var operations = []load.Op{load.Connect, load.Request, load.KeepAlive, load.Bulk, load.Connected, load.Datagram}

// slice is how long one variant runs before the next has its turn: short, so
// that what else the machine does hits all of them alike.
const slice = 100 * time.Millisecond

// Compare measures all variants side by side. The report holds what was
// measured also when there is an error.
func Compare(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	chosen, missing := choose(variants(o), o.Only)
	r := newReport(o, chosen, missing)
	s, err := newSite(ctx, o.Log, len(chosen))
	if err != nil {
		return r, err
	}
	defer s.close()
	for i, v := range chosen {
		start := time.Now()
		if err := v.prepare(s.clients[i]); err != nil {
			return r, fmt.Errorf("prepare %s: %w", v.name, err)
		}
		o.Log.Info("variant ready", "variant", v.name, "took", time.Since(start).Round(time.Millisecond))
	}
	for round := range o.Rounds {
		for _, op := range operations {
			if !wanted(o.Only, operations, op) {
				continue
			}
			if err := measure(ctx, s, chosen, op, round, o.Each, r); err != nil {
				return r, err
			}
		}
		o.Log.Info("round done", "round", round+1, "of", o.Rounds)
	}
	return r, countRuns(ctx, s, chosen, o, r)
}

// measure runs one kind of traffic through every variant, in turns that start
// with another one each time.
func measure(ctx context.Context, s *site, chosen []variant, op load.Op, round int, span time.Duration, r *Report) error {
	sums := make([]load.Result, len(chosen))
	targets := make([][]netip.AddrPort, len(chosen))
	for i, v := range chosen {
		targets[i] = v.targets(op)
	}
	for turn := 0; span > 0; turn++ {
		part := min(span, slice)
		span -= part
		for i := range chosen {
			if err := ctx.Err(); err != nil {
				return err
			}
			i = (i + turn + round) % len(chosen)
			if chosen[i].tcpOnly && isDatagram(op) {
				continue
			}
			result, err := s.clients[i].traffic.Do(ctx, load.Job{Op: op, Targets: targets[i], For: part})
			if err != nil {
				return fmt.Errorf("measure %s of %s: %w", op, chosen[i].name, err)
			}
			sums[i].Add(result)
		}
	}
	for i, sum := range sums {
		if sum.Elapsed > 0 {
			r.add(chosen[i].name, op, sum)
		}
	}
	return nil
}

func isDatagram(op load.Op) bool { return op == load.Connected || op == load.Datagram }

// wanted tells whether Only leaves it in: all of a list are in when Only names
// none of them.
func wanted[T ~string](only []string, list []T, one T) bool {
	named := func(x T) bool { return slices.Contains(only, string(x)) }
	return named(one) || !slices.ContainsFunc(list, named)
}

// choose takes the variants that Only leaves in, those that they are compared
// with, and always the first. Where a tool is missing, a variant is left out.
func choose(all []variant, only []string) (chosen, missing []variant) {
	var names []string
	for _, v := range all {
		names = append(names, v.name)
	}
	needed := map[string]bool{direct: true}
	for _, v := range all {
		if wanted(only, names, v.name) {
			needed[v.name], needed[v.base] = true, true
		}
	}
	for _, v := range all {
		if !needed[v.name] {
			continue
		}
		if _, err := exec.LookPath(v.tool); v.tool != "" && err != nil {
			missing = append(missing, v)
			continue
		}
		chosen = append(chosen, v)
	}
	return chosen, missing
}
