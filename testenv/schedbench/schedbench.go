// Package schedbench measures how fast package controller/scheduler decides: a
// whole fleet from nothing, and one changed app of many. It is the engine of
// "weir-bench schedule", and touches nothing but memory.
package schedbench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Options say what to measure.
type Options struct {
	Nodes  int // at least 1
	Tasks  int // at least 1
	Racks  int // that the nodes are in by turns; at least 1
	Rounds int // at least 1
}

// Validate names the option that is wrong.
func (o Options) Validate() error {
	for name, n := range map[string]int{"nodes": o.Nodes, "tasks": o.Tasks, "racks": o.Racks, "rounds": o.Rounds} {
		if n < 1 {
			return fmt.Errorf("--%s=%d must be at least 1", name, n)
		}
	}
	return nil
}

// Report has the medians of all rounds.
type Report struct {
	Nodes   int       `json:"nodes"`
	Tasks   int       `json:"tasks"`
	Fleets  []Fleet   `json:"fleets"`
	Changed []Changed `json:"changed"`
}

// Fleet is a fleet that was placed from nothing.
type Fleet struct {
	Kind      string `json:"kind"`
	Instances int    `json:"instances"` // of each app
	Placed    int    `json:"placed"`
	// PerSecond is placements by the clock, PerCPU by the time that the process
	// has used, which other load on the machine does not change much.
	PerSecond float64 `json:"per_second"`
	PerCPU    float64 `json:"per_cpu_second"`
}

// Changed is the plan for one changed app among many.
type Changed struct {
	Kind   string        `json:"kind"`
	Apps   int           `json:"apps"`
	Median time.Duration `json:"median_ns"`
	Worst  time.Duration `json:"worst_ns"`
}

// kinds are the apps that are placed, by what they ask for.
var kinds = []struct {
	name   string
	change func(*api.App)
}{
	{"plain", func(*api.App) {}},
	{"LIKE, UNIQUE host, GROUP_BY rack", func(a *api.App) {
		a.Constraints = [][]string{{"disk", "LIKE", "ss?d"}, {"hostname", "UNIQUE"}, {"@rack", "GROUP_BY"}}
	}},
	{"spread over zone and rack", func(a *api.App) { a.Spread = []string{"zone", "rack"} }},
}

// Run measures, until the context ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Report{Nodes: o.Nodes, Tasks: o.Tasks}
	for _, kind := range kinds {
		for _, instances := range []int{1, 10, 1000} {
			if instances > o.Tasks {
				continue
			}
			f, err := place(ctx, o, kind.change, instances)
			if err != nil {
				return nil, err
			}
			f.Kind = kind.name
			r.Fleets = append(r.Fleets, f)
		}
		r.Changed = append(r.Changed, change(o, kind.change, kind.name))
	}
	return r, nil
}

func fleet(o Options, change func(*api.App), instances int) *scheduler.State {
	s := &scheduler.State{Seed: 1}
	for i := range o.Nodes {
		s.Nodes = append(s.Nodes, scheduler.Node{Node: api.Node{
			Name: fmt.Sprintf("n%d", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
			Domain:     api.FaultDomain{Zone: fmt.Sprintf("z%d", i%3), Rack: fmt.Sprintf("r%d", i%o.Racks)},
			Attributes: map[string]string{"disk": []string{"ssd", "hdd"}[i%2]},
			Resources:  api.Resources{CPUs: 16, Memory: 64 << 30, Disk: 1 << 40},
		}})
	}
	for i := range o.Tasks / instances {
		a := api.NewApp()
		a.ID, a.Cmd, a.Version, a.CPUs, a.Mem, a.Instances = fmt.Sprintf("/apps/a%d", i), "run", "1", 0.5, 256, api.Instances(instances)
		change(&a)
		a.Complete()
		s.Targets = append(s.Targets, scheduler.Target{App: a, Count: instances})
	}
	return s
}

// place places a fleet from nothing, the building of the table included.
func place(ctx context.Context, o Options, change func(*api.App), instances int) (Fleet, error) {
	s := fleet(o, change, instances)
	f := Fleet{Instances: instances}
	var clock, used []float64
	for range o.Rounds {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		began, before := time.Now(), cpu()
		f.Placed = len(scheduler.Place(s, began).Launch)
		clock = append(clock, float64(f.Placed)/time.Since(began).Seconds())
		used = append(used, float64(f.Placed)/max(cpu()-before, time.Microsecond).Seconds())
	}
	f.PerSecond, f.PerCPU = median(clock), median(used)
	return f, nil
}

// change scales one app of many up and down, and plans.
func change(o Options, of func(*api.App), kind string) Changed {
	s := fleet(o, of, 1)
	table := scheduler.NewTable(s)
	table.Plan(time.Now())
	c := Changed{Kind: kind, Apps: len(s.Targets)}
	var took []time.Duration
	for n := range 20 * o.Rounds {
		target := s.Targets[n*7919%len(s.Targets)]
		target.Count = 1 + n%2
		began := time.Now()
		table.SetTargets(target.App.ID, []scheduler.Target{target})
		table.Plan(began)
		took = append(took, time.Since(began))
	}
	c.Median, c.Worst = median(took), slices.Max(took)
	return c
}

func median[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// cpu is the time that the process has used.
func cpu() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// Markdown writes the report as tables.
func (r *Report) Markdown(w io.Writer) error {
	if r == nil {
		return nil
	}
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	line("%d tasks on %d nodes, from nothing:\n", r.Tasks, r.Nodes)
	line("| apps | instances of each | placed | placements/s | per CPU second |\n|---|---|---|---|---|")
	for _, f := range r.Fleets {
		line("| %s | %d | %d | %.0f | %.0f |", f.Kind, f.Instances, f.Placed, f.PerSecond, f.PerCPU)
	}
	line("\nOne changed app:\n\n| apps | how many | plan, median | worst |\n|---|---|---|---|")
	for _, c := range r.Changed {
		line("| %s | %d | %s | %s |", c.Kind, c.Apps, c.Median.Round(time.Microsecond), c.Worst.Round(time.Microsecond))
	}
	return err
}
