package bench

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv/bench/load"
)

// Runs of the programs of a hook while a kind of traffic went on.
type Runs struct {
	Variant   string  `json:"variant"`
	Operation load.Op `json:"operation"`
	Hook      string  `json:"hook"` // or allHooks
	Exchanges uint64  `json:"exchanges"`
	Count     uint64  `json:"count"`
	// Mean run time in slices of the traffic: the kernel's own measuring is in
	// it, and so is what interrupts a program.
	Mean Spread `json:"mean_ns"`
}

const allHooks = "all"

// runSlices of traffic are looked at one by one: where something else takes the
// CPU amid a program, that spoils the mean of one of them.
const runSlices = 15

// countRuns asks the kernel how often the programs run and how long they take.
// It measures every run for that, which slows them: not while rates are taken.
func countRuns(ctx context.Context, s *site, chosen []variant, o Options, r *Report) error {
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return fmt.Errorf("enable program statistics: %w", err)
	}
	defer stats.Close()
	span := min(o.Each/4, slice)
	for i, v := range chosen {
		if !v.programs {
			continue
		}
		programs, err := attached(s.clients[i].cgroup)
		if err != nil {
			return err
		}
		defer closeAll(programs)
		for _, op := range operations {
			if !wanted(o.Only, operations, op) {
				continue
			}
			runs, err := runsDuring(ctx, s.clients[i], v, load.Job{Op: op, Targets: v.targets(op), For: span}, programs)
			if err != nil {
				return fmt.Errorf("count runs of %s: %w", v.name, err)
			}
			r.Runs = append(r.Runs, runs...)
		}
	}
	return nil
}

func runsDuring(ctx context.Context, c *client, v variant, job load.Job, programs map[string][]*ebpf.Program) ([]Runs, error) {
	means := map[string][]float64{}
	counts := map[string]uint64{allHooks: 0}
	exchanges := uint64(0)
	for range runSlices {
		before, err := totals(programs)
		if err != nil {
			return nil, err
		}
		result, err := c.traffic.Do(ctx, job)
		if err != nil {
			return nil, err
		}
		after, err := totals(programs)
		if err != nil {
			return nil, err
		}
		exchanges += result.Count
		for hook, a := range after {
			count, took := a.RunCount-before[hook].RunCount, a.Runtime-before[hook].Runtime
			if count > 0 {
				means[hook] = append(means[hook], float64(took.Nanoseconds())/float64(count))
				counts[hook] += count
			}
		}
	}
	var all []Runs
	for hook, count := range counts {
		all = append(all, Runs{Variant: v.name, Operation: job.Op, Hook: hook, Exchanges: exchanges, Count: count, Mean: spreadOf(means[hook])})
	}
	return all, nil
}

// totals by hook, and of all of them, since the programs were loaded.
func totals(programs map[string][]*ebpf.Program) (map[string]ebpf.ProgramStats, error) {
	all := map[string]ebpf.ProgramStats{}
	add := func(hook string, count uint64, took time.Duration) {
		sum := all[hook]
		sum.RunCount, sum.Runtime = sum.RunCount+count, sum.Runtime+took
		all[hook] = sum
	}
	for hook, list := range programs {
		for _, p := range list {
			s, err := p.Stats()
			if err != nil {
				return nil, fmt.Errorf("read statistics of the program at %s: %w", hook, err)
			}
			add(hook, s.RunCount, s.Runtime)
			add(allHooks, s.RunCount, s.Runtime)
		}
	}
	return all, nil
}

// perExchange tells whether programs run for every exchange of the kind. Of the
// others it is of interest that they run for none.
func perExchange(op load.Op) bool {
	return op == load.Connect || op == load.Request || op == load.Datagram
}

func (r *Report) runsTable(b *strings.Builder) {
	if len(r.Runs) == 0 {
		return
	}
	b.WriteString("\n### Runs of the programs, by the kernel's own count\n\n| traffic | | hook | exchanges | runs | mean ns |\n|---|---|---|---|---|---|\n")
	sorted := slices.Clone(r.Runs)
	slices.SortStableFunc(sorted, func(x, y Runs) int {
		return cmp.Or(cmp.Compare(slices.Index(operations, x.Operation), slices.Index(operations, y.Operation)),
			cmp.Compare(x.Hook, y.Hook))
	})
	for _, run := range sorted {
		// What runs once for many exchanges has no mean to speak of.
		frequent := run.Count*2 > run.Exchanges
		if perExchange(run.Operation) == (run.Hook == allHooks) || run.Hook != allHooks && !frequent {
			continue
		}
		mean := ""
		if frequent && run.Hook != allHooks {
			mean = run.Mean.text(1, 0)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %d | %d | %s |\n", run.Operation, run.Variant, run.Hook, run.Exchanges, run.Count, mean)
	}
	fmt.Fprintf(b, "\nOf connections that stay open the programs run for the opening and the close alone: %d of each.\n", runSlices)
}
