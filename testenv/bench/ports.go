package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/weirproject/weir/testenv/bench/load"
)

// PortsOptions of Ports; zero fields take the default.
type PortsOptions struct {
	For  time.Duration // of each side; 5 minutes
	Rate int           // new connections a second; 5,000
	Log  *slog.Logger
}

// PortsReport holds the same for the direct connection and for the VIP.
type PortsReport struct {
	Direct PortsFigures `json:"direct"`
	VIP    PortsFigures `json:"vip"`
}

// PortsFigures of one side.
type PortsFigures struct {
	Connections uint64         `json:"connections"`
	PerSecond   float64        `json:"per_second"`
	P50         float64        `json:"p50_us"`
	P99         float64        `json:"p99_us"`
	Failures    map[string]int `json:"failures"`
}

func portsFigures(r load.Result) PortsFigures {
	return PortsFigures{r.Count, r.Rate(), microseconds(r.Latency.Quantile(0.5)), microseconds(r.Latency.Quantile(0.99)), r.Failures}
}

// portsTurn is how long each side runs before the other has its turn: long
// enough to come round to the first source port again.
const portsTurn = 30 * time.Second

// Ports makes connections from one source port after the other, 64,000 in all
// and then from the first again, directly and through one VIP with 100
// backends.
func Ports(ctx context.Context, o PortsOptions) (*PortsReport, error) {
	if o.For == 0 {
		o.For = 5 * time.Minute
	}
	if o.Rate == 0 {
		o.Rate = 5000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &PortsReport{}
	s, err := newSite(ctx, o.Log, 2)
	if err != nil {
		return r, err
	}
	defer s.close()
	t := makeTable(1, 100)
	if err := balance(t)(s.clients[1]); err != nil {
		return r, err
	}
	var direct, vip load.Result
	for left := o.For; left > 0; left -= portsTurn {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		job := load.Job{Op: load.Ports, For: min(left, portsTurn), Rate: o.Rate, Targets: directTargets(t, load.Ports)}
		one, err1 := s.clients[0].traffic.Do(ctx, job)
		job.Targets = frontends(t, load.Ports)
		other, err2 := s.clients[1].traffic.Do(ctx, job)
		if err := errors.Join(err1, err2); err != nil {
			return r, err
		}
		direct.Add(one)
		vip.Add(other)
		r.Direct, r.VIP = portsFigures(direct), portsFigures(vip)
		o.Log.Info("turn done", "direct", direct.Count, "vip", vip.Count, "left", left-min(left, portsTurn))
	}
	return r, nil
}

// Markdown writes the report for people.
func (r *PortsReport) Markdown(w io.Writer) error {
	_, err := fmt.Fprintf(w, "| | connections | per second | p50 µs | p99 µs | failed |\n|---|---|---|---|---|---|\n%s%s",
		portsRow("direct", r.Direct), portsRow("through a VIP", r.VIP))
	return err
}

func portsRow(name string, f PortsFigures) string {
	return fmt.Sprintf("| %s | %d | %.0f | %.1f | %.1f | %s |\n", name, f.Connections, f.PerSecond, f.P50, f.P99, counts(f.Failures))
}
