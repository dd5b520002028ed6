// Package zonebench measures zones: how long a large policy takes to compile and
// to reach the kernel, how long one member of a zone takes, and how many new
// connections a second pass through the rules, beside one rule that accepts all,
// beside a kernel without rules, and beside a rule for every address.
//
// All rates are of one process that connects, one connection after the other, in
// turns of some milliseconds: each round measures every way once, and ratios are
// of the same round. It makes nothing outside of namespaces of its own, which end
// with the process.
package zonebench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options of Run. Zero values stand for what the documentation's figures were
// measured with.
type Options struct {
	Zones   int           // of the policy, 2 or more; 200
	Rules   int           // of the policy; 2,000
	Members int           // addresses in all zones; 100,000
	Changes int           // of one member; 100
	Rounds  int           // of all ways; 60
	Turn    time.Duration // of connecting, for each way and target in a round; 30 ms
	Log     *slog.Logger  // may be nil
}

func (o Options) withDefaults() Options {
	for _, f := range []struct {
		field *int
		value int
	}{{&o.Zones, 200}, {&o.Rules, 2000}, {&o.Members, 100_000}, {&o.Changes, 100}, {&o.Rounds, 60}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if o.Turn == 0 {
		o.Turn = 30 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Zones < 0 || o.Zones == 1 || o.Zones > 10_000:
		return fmt.Errorf("options: Zones %d is not within 2 to 10000", o.Zones)
	case o.Rules < 0 || o.Rules > 20_000:
		return fmt.Errorf("options: Rules %d is not within 1 to 20000", o.Rules)
	case o.Members < 0 || o.Members > 1_000_000:
		return fmt.Errorf("options: Members %d is not within 1 to 1000000", o.Members)
	case o.Changes < 0 || o.Rounds < 0 || o.Turn < 0:
		return fmt.Errorf("options: Changes %d, Rounds %d and Turn %s must not be negative", o.Changes, o.Rounds, o.Turn)
	}
	return nil
}

// Times of the tries of one thing.
type Times struct{ Median, Most time.Duration }

func timesOf(all []time.Duration) Times {
	if len(all) == 0 {
		return Times{}
	}
	slices.Sort(all)
	return Times{all[len(all)/2], all[len(all)-1]}
}

// Rates of new connections a second to one target.
type Rates struct {
	PerSecond  float64 // the median
	OfOneRule  float64 // the median of the rounds' ratios to one accept-all rule
	Least, Top float64 // the quartiles of these ratios
}

// Row is what one way did: to the node itself, and through it to a server.
type Row struct {
	Name            string
	ToNode, Through Rates
}

// Result of a Run.
type Result struct {
	Kernel                string
	Zones, Rules, Members int
	Compile, Apply        Times // the whole policy, from nothing
	MemberCompile         Times // one member comes or goes
	Member                Times // the same, until the kernel has it
	MemberWrites          int   // elements that one change has written, at most
	Rows                  []Row
}

// Run measures. It needs root.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	o = o.withDefaults()
	r := Result{Zones: o.Zones, Rules: o.Rules, Members: o.Members}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return r, err
	}
	r.Kernel = unix.ByteSliceToString(name.Release[:])
	if err := r.changes(ctx, o); err != nil {
		return r, fmt.Errorf("measure changes: %w", err)
	}
	if err := r.connections(ctx, o); err != nil {
		return r, fmt.Errorf("measure connections: %w", err)
	}
	return r, nil
}

// Markdown writes the result as tables.
func (r Result) Markdown(w io.Writer) error {
	var t strings.Builder
	fmt.Fprintf(&t, "Linux %s; %d zones, %d rules, %d addresses; medians, and the most.\n\n| | |\n|---|---|\n", r.Kernel, r.Zones, r.Rules, r.Members)
	for _, row := range []struct {
		name string
		Times
	}{{"compiled", r.Compile}, {"applied", r.Apply}, {"one member, compiled", r.MemberCompile}, {"one member, until the kernel has it", r.Member}} {
		fmt.Fprintf(&t, "| %s | %.1f ms (%.1f) |\n", row.name, milliseconds(row.Median), milliseconds(row.Most))
	}
	fmt.Fprintf(&t, "| elements written for one member | %d |\n", r.MemberWrites)
	t.WriteString("\nNew TCP connections a second; ratios to one accept-all rule are medians, with their quartiles.\n\n| | to the node | ratio | through it | ratio |\n|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		a, b := row.ToNode, row.Through
		fmt.Fprintf(&t, "| %s | %.0f | %.3f (%.3f–%.3f) | %.0f | %.3f (%.3f–%.3f) |\n",
			row.Name, a.PerSecond, a.OfOneRule, a.Least, a.Top, b.PerSecond, b.OfOneRule, b.Least, b.Top)
	}
	_, err := io.WriteString(w, t.String())
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
