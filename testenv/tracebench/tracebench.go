// Package tracebench measures what it costs to watch flows: new connections and
// bulk throughput with the kernel traced, beside the same without. It runs in a
// process with a network namespace of its own; weir-bench calls it.
package tracebench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/weirproject/weir/dataplane/trace"
	"github.com/weirproject/weir/testenv"
)

// childVariable has the options of the process that measures.
const childVariable = "WEIR_TRACEBENCH"

// Options of a run.
type Options struct {
	// Rounds of all ways; 1 to 1000.
	Rounds int
	// Turn is how long each kind of traffic lasts in a round, for each way; 10 ms
	// to 10 s.
	Turn time.Duration
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	switch {
	case o.Rounds < 1 || o.Rounds > 1000:
		return fmt.Errorf("rounds %d is not between 1 and 1000", o.Rounds)
	case o.Turn < 10*time.Millisecond || o.Turn > 10*time.Second:
		return fmt.Errorf("turn %s is not between 10ms and 10s", o.Turn)
	}
	return nil
}

// Way is one way to run the traffic, with its medians.
type Way struct {
	Name        string
	Connections Figure // a second
	Bulk        Figure // bytes a second
	// CPU of both ends, in seconds for a connection, and for a byte. On a machine
	// that others use too, this says more than the rates.
	ConnectionCPU, BulkCPU Figure
}

// Figure is a median, and the median of the ratios to the turn of the same round
// that nobody watched.
type Figure struct{ Value, Ratio float64 }

// Report of a run.
type Report struct {
	Rounds int
	Turn   time.Duration
	Ways   []Way
	// Told events in all, and those that were counted alone.
	Told, Lost, Skipped uint64
}

// Markdown writes the report as a table.
func (r Report) Markdown(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d rounds of %s; medians, and medians of the ratios in a round.\n\n", r.Rounds, r.Turn)
	fmt.Fprintln(&b, "| | new connections/s | ratio | CPU µs each | ratio | bulk GB/s | ratio | CPU ms each GB | ratio |\n|---|---|---|---|---|---|---|---|---|")
	for _, w := range r.Ways {
		fmt.Fprintf(&b, "| %s | %.0f | %.3f | %.2f | %.3f | %.2f | %.3f | %.1f | %.3f |\n", w.Name, w.Connections.Value, w.Connections.Ratio,
			w.ConnectionCPU.Value*1e6, w.ConnectionCPU.Ratio, w.Bulk.Value/1e9, w.Bulk.Ratio, w.BulkCPU.Value*1e12, w.BulkCPU.Ratio)
	}
	fmt.Fprintf(&b, "\n%d events told, %d lost, %d flows beyond the limit.\n", r.Told, r.Lost, r.Skipped)
	_, err := w.Write(b.Bytes())
	return err
}

// Main is to be called first by every program that calls Run: the process that
// measures is the same program, and ends here.
func Main() {
	text := os.Getenv(childVariable)
	if text == "" {
		return
	}
	var o Options
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		var r Report
		if r, err = measure(o); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Run measures, in a process of its own.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return Report{}, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		return Report{}, fmt.Errorf("measure: %w: %s", err, bytes.TrimSpace(faults.Bytes()))
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		return Report{}, fmt.Errorf("read what was measured: %w", err)
	}
	return r, nil
}

// ways in the order of the report. The second is there to show the noise.
var ways = []string{"nobody watches", "nobody watches, again", "flows are watched"}

// measure runs every way in each round, each time in another order.
func measure(o Options) (Report, error) {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return Report{}, fmt.Errorf("set lo up: %w: %s", err, out)
	}
	t, err := newTraffic()
	if err != nil {
		return Report{}, err
	}
	defer t.close()
	r := Report{Rounds: o.Rounds, Turn: o.Turn}
	seen := make([][]sample, len(ways))
	if _, err := t.turn(o.Turn); err != nil { // warms up
		return r, err
	}
	for round := range o.Rounds {
		for i := range ways {
			way := (i + round) % len(ways)
			got, err := t.way(way == len(ways)-1, o.Turn, &r)
			if err != nil {
				return r, fmt.Errorf("%s: %w", ways[way], err)
			}
			seen[way] = append(seen[way], got)
		}
	}
	for i, name := range ways {
		figure := func(of func(sample) float64) Figure {
			values, ratios := make([]float64, o.Rounds), make([]float64, o.Rounds)
			for round := range o.Rounds {
				values[round] = of(seen[i][round])
				ratios[round] = values[round] / of(seen[0][round])
			}
			return Figure{median(values), median(ratios)}
		}
		r.Ways = append(r.Ways, Way{
			Name: name, Connections: figure(func(s sample) float64 { return s.connections }), Bulk: figure(func(s sample) float64 { return s.bulk }),
			ConnectionCPU: figure(func(s sample) float64 { return s.connectionCPU }), BulkCPU: figure(func(s sample) float64 { return s.bulkCPU }),
		})
	}
	return r, nil
}

// way runs one turn, watched or not.
func (t *traffic) way(watched bool, turn time.Duration, r *Report) (got sample, err error) {
	if !watched {
		runtime.GC()
		return t.turn(turn)
	}
	cgroup, err := testenv.CgroupRoot()
	if err != nil {
		return got, err
	}
	tracer, err := trace.Open(trace.Options{Cgroup: cgroup})
	if err != nil {
		return got, err
	}
	// What Open left behind is not what watching costs.
	runtime.GC()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tracer.Run(ctx, func(trace.Event) {}) }()
	got, err = t.turn(turn)
	c, countErr := tracer.Counts()
	r.Told, r.Lost, r.Skipped = r.Told+c.Told, r.Lost+c.Lost, r.Skipped+c.Skipped
	stop()
	return got, errors.Join(err, countErr, <-ended, tracer.Close())
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
