// Package controllerbench measures a controller with many nodes: how long from
// a write's acknowledgement until each node has the change, and what that costs
// the controller's process. The nodes are simulated: each has its certificate,
// its connection, its stream and its reports with heartbeats and
// acknowledgements, and applies nothing. All is on loopback.
package controllerbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// Options of Run. Zero values stand for what the documentation's figures were
// measured with.
type Options struct {
	Nodes    int           // simulated; 1,000
	Services int           // 100
	Backends int           // of each service; 10
	Rate     int           // changes of one backend per second; 100
	For      time.Duration // of changing; 20 s
	Memory   bool          // keep the store in memory instead of on disk
	Log      *slog.Logger  // may be nil
}

func (o Options) withDefaults() Options {
	for _, f := range []struct {
		field *int
		value int
	}{{&o.Nodes, 1000}, {&o.Services, 100}, {&o.Backends, 10}, {&o.Rate, 100}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if o.For == 0 {
		o.For = 20 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Nodes < 0 || o.Nodes > 5000:
		return fmt.Errorf("options: Nodes %d is not within 1 to 5000", o.Nodes)
	case o.Services < 0 || o.Services > 10_000:
		return fmt.Errorf("options: Services %d is not within 1 to 10000", o.Services)
	case o.Backends < 0 || o.Backends > 1000:
		return fmt.Errorf("options: Backends %d is not within 1 to 1000", o.Backends)
	case o.Rate < 0 || o.Rate > 10_000 || o.For < 0:
		return fmt.Errorf("options: Rate %d is not within 1 to 10000, or For %s is negative", o.Rate, o.For)
	}
	return nil
}

// Result of a run.
type Result struct {
	Nodes, Services, Backends int
	Changes                   int     // that were acknowledged
	Rate                      float64 // of them a second
	Write                     Times   // a change, until it was acknowledged
	Reached                   Times   // a change at a node, after its acknowledgement
	Missed                    int     // changes that a node did not get
	Connect                   time.Duration
	Cores                     float64 // that the controller used while changes were made
	IdleCores                 float64 // and with heartbeats alone
	Memory                    int64   // the most that it held, in bytes
	CPUs                      int
}

// Times of many tries.
type Times struct{ Median, P99, Most time.Duration }

func timesOf(all []time.Duration) Times {
	if len(all) == 0 {
		return Times{}
	}
	slices.Sort(all)
	return Times{all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

// Markdown writes the result as a table.
func (r Result) Markdown(w io.Writer) error {
	round := func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
	_, err := fmt.Fprintf(w, `| a controller, %d simulated nodes, %d services of %d backends, %d CPUs for both sides | |
|---|---|
| changes of one backend | %d, %.0f/s |
| a write, until acknowledged: median, p99, most | %s, %s, %s |
| from there to every node: median, p99, most | %s, %s, %s |
| changes that a node missed | %d |
| all nodes connected within | %s |
| the controller's CPU: during changes, idle | %.2f, %.2f cores |
| the controller's memory, at most | %d MiB |
`, r.Nodes, r.Services, r.Backends, r.CPUs, r.Changes, r.Rate,
		round(r.Write.Median), round(r.Write.P99), round(r.Write.Most), round(r.Reached.Median), round(r.Reached.P99), round(r.Reached.Most),
		r.Missed, round(r.Connect), r.Cores, r.IdleCores, r.Memory>>20)
	return err
}

// change is one write.
type change struct {
	revision uint64
	acked    time.Time
	took     time.Duration
}

// settle is how long nodes may take to get the last changes.
const settle = 10 * time.Second

// Run measures.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	o = o.withDefaults()
	p, err := startController(ctx, o.Memory)
	if err != nil {
		return Result{}, err
	}
	defer p.stop()
	cluster, err := client.NewCluster(p.login)
	if err != nil {
		return Result{}, err
	}
	defer cluster.Close()
	r := Result{Nodes: o.Nodes, Services: o.Services, Backends: o.Backends, CPUs: runtime.NumCPU()}
	if err := fill(ctx, cluster, o); err != nil {
		return r, err
	}
	nodes, err := joinAll(ctx, p, o.Nodes)
	if err != nil {
		return r, err
	}
	defer func() {
		for _, n := range nodes {
			n.stop()
		}
	}()
	o.Log.Info("nodes joined", "nodes", len(nodes))
	began := time.Now()
	if err := connect(ctx, p, nodes); err != nil {
		return r, err
	}
	r.Connect = time.Since(began)
	o.Log.Info("nodes connected", "nodes", len(nodes), "took", r.Connect)
	if err := quiet(ctx, cluster, nodes); err != nil {
		return r, err
	}
	if r.IdleCores, err = p.cores(ctx, 3*time.Second); err != nil {
		return r, err
	}
	var changes []change
	r.Cores, err = p.coresWhile(func() (err error) {
		changes, err = churn(ctx, cluster, o)
		return err
	})
	if err != nil {
		return r, err
	}
	r.Changes, r.Rate = len(changes), float64(len(changes))/o.For.Seconds()
	r.judge(nodes, changes)
	r.Memory, err = p.memory()
	return r, err
}

// quiet waits until what the nodes say of themselves has reached all of them.
func quiet(ctx context.Context, cluster *client.Cluster, nodes []*node) error {
	for last := uint64(0); ; {
		info, err := cluster.Info(ctx)
		if err != nil {
			return err
		}
		if info.Revision == last {
			for _, n := range nodes {
				n.await(last, time.Now().Add(settle))
			}
			return nil
		}
		last = info.Revision
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// judge finds when each change had reached each node.
func (r *Result) judge(nodes []*node, changes []change) {
	slices.SortFunc(changes, func(a, b change) int { return int(int64(a.revision) - int64(b.revision)) })
	var reached, writes []time.Duration
	for _, c := range changes {
		writes = append(writes, c.took)
	}
	deadline := time.Now().Add(settle)
	for _, n := range nodes {
		n.await(changes[len(changes)-1].revision, deadline)
		seen := n.seen()
		i := 0
		for _, c := range changes {
			for i < len(seen) && seen[i].revision < c.revision {
				i++
			}
			if i == len(seen) {
				r.Missed++
				continue
			}
			reached = append(reached, max(0, seen[i].at.Sub(c.acked)))
		}
	}
	r.Write, r.Reached = timesOf(writes), timesOf(reached)
}

func serviceAt(i, backends int, state api.BackendState, at int) api.Service {
	s := api.Service{Name: fmt.Sprintf("s%d", i), Protocol: api.TCP, VIPs: []api.VIP{{Name: fmt.Sprintf("s%d", i), Port: 80}}}
	for j := range backends {
		b := api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), uint16(8000+j>>8))}
		if j == at {
			b.State = state
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}

// fill applies the services.
func fill(ctx context.Context, cluster *client.Cluster, o Options) error {
	for first := 0; first < o.Services; first += 500 {
		var asked api.Apply
		for i := first; i < min(first+500, o.Services); i++ {
			raw, err := json.Marshal(serviceAt(i, o.Backends, "", -1))
			if err != nil {
				return err
			}
			asked.Objects = append(asked.Objects, api.ApplyObject{Kind: "service", Object: raw})
		}
		if _, err := cluster.Apply(ctx, asked); err != nil {
			return fmt.Errorf("apply the services: %w", err)
		}
	}
	return nil
}

// writers make changes side by side.
const writers = 16

// churn changes one backend after the other at the rate.
func churn(ctx context.Context, cluster *client.Cluster, o Options) ([]change, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []change
	var failed error
	work := make(chan int, writers)
	var busy sync.WaitGroup
	for range writers {
		busy.Go(func() {
			for n := range work {
				c, err := write(ctx, cluster, o, n)
				mu.Lock()
				if err == nil {
					all = append(all, c)
				} else if failed == nil {
					failed = err
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	ticker := time.NewTicker(time.Second / time.Duration(o.Rate))
	defer ticker.Stop()
	end := time.After(o.For)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
		case <-end:
		case <-ticker.C:
			select {
			case work <- n:
			default: // the controller is slower than the rate
			}
			continue
		}
		break
	}
	close(work)
	busy.Wait()
	if failed == nil && len(all) == 0 {
		failed = errors.New("no change was made")
	}
	return all, failed
}

func write(ctx context.Context, cluster *client.Cluster, o Options, n int) (change, error) {
	i := n % o.Services
	states := []api.BackendState{api.Draining, api.Up, api.Down}
	s := serviceAt(i, o.Backends, states[n/o.Services%3], n/o.Services%o.Backends)
	raw, err := json.Marshal(s)
	if err != nil {
		return change{}, err
	}
	began := time.Now()
	stored, err := cluster.Put(ctx, "service", api.ServiceKey(&s), raw, nil)
	if err != nil {
		return change{}, fmt.Errorf("write change %d: %w", n, err)
	}
	return change{stored.Version, time.Now(), time.Since(began)}, nil
}

// tempDir for a controller's store.
func tempDir() (string, error) { return os.MkdirTemp("", "weir-controllerbench-") }
