package bench

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv/bench/load"
)

// Report of Compare. Figures are medians over the rounds; ratios are medians of
// each round's ratio to the direct connection in the same round.
type Report struct {
	Machine  string        `json:"machine"`
	Rounds   int           `json:"rounds"`
	Seconds  float64       `json:"seconds"`
	Services int           `json:"services"`
	Backends int           `json:"backends"`
	Variants []VariantName `json:"variants"`
	Missing  []VariantName `json:"missing"` // for want of a tool
	Figures  []Figure      `json:"figures"`
	Runs     []Runs        `json:"program_runs"`
	series   map[seriesKey]*series
}

// VariantName says what a variant is, and with which its figures are compared.
type VariantName struct {
	Name string `json:"name"`
	What string `json:"what"`
	Base string `json:"base"`
}

// Figure is what one kind of traffic gave through one variant.
type Figure struct {
	Variant   string  `json:"variant"`
	Operation load.Op `json:"operation"`
	// PerSecond exchanges, or bytes with bulk.
	PerSecond Spread `json:"per_second"`
	Ratio     Spread `json:"ratio"`
	P50       Spread `json:"p50_us"`
	P99       Spread `json:"p99_us"`
	P50More   Spread `json:"p50_more_us"`
	P99Ratio  Spread `json:"p99_ratio"`
	// CPU time of the client's side for each exchange: unlike the rate it does
	// not depend on who else has the CPUs.
	CPU       Spread `json:"cpu_us"`
	CPURatio  Spread `json:"cpu_ratio"`
	Failures  int    `json:"failures"` // in all rounds
	Wrong     uint64 `json:"wrong"`
	FirstFail string `json:"first_failure,omitempty"`
}

type seriesKey struct {
	variant string
	op      load.Op
}

// series holds a value for each round.
type series struct {
	rate, p50, p99, cpu []float64
	failures            int
	why                 string
	wrong               uint64
}

func newReport(o Options, chosen, missing []variant) *Report {
	r := &Report{
		Machine: machine(), Rounds: o.Rounds, Seconds: o.Each.Seconds(), Services: o.Services, Backends: o.Backends,
		series: map[seriesKey]*series{},
	}
	for _, v := range chosen {
		r.Variants = append(r.Variants, VariantName{v.name, v.what, v.base})
	}
	for _, v := range missing {
		r.Missing = append(r.Missing, VariantName{v.name, v.what, v.base})
	}
	return r
}

func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Sprintf("%d CPUs", runtime.NumCPU())
	}
	return fmt.Sprintf("%d CPUs, Linux %s", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]))
}

// add takes in a round and brings the figures up to date.
func (r *Report) add(name string, op load.Op, result load.Result) {
	key := seriesKey{name, op}
	s := r.series[key]
	if s == nil {
		s = &series{}
		r.series[key] = s
		r.Figures = append(r.Figures, Figure{Variant: name, Operation: op})
	}
	s.rate = append(s.rate, result.Rate())
	s.p50 = append(s.p50, microseconds(result.Latency.Quantile(0.5)))
	s.p99 = append(s.p99, microseconds(result.Latency.Quantile(0.99)))
	s.cpu = append(s.cpu, microseconds(result.CPUEach()))
	s.failures += result.Failed()
	s.wrong += result.Wrong
	for why := range result.Failures {
		s.why = why
	}
	for i := range r.Figures {
		if f := &r.Figures[i]; f.Operation == op {
			f.fill(r.series[seriesKey{f.Variant, op}], r.series[seriesKey{r.base(f.Variant), op}])
		}
	}
}

// base names what the variant is compared with.
func (r *Report) base(name string) string {
	for _, v := range r.Variants {
		if v.Name == name {
			return v.Base
		}
	}
	return direct
}

// fill works the figure out of the rounds; either may be nil.
func (f *Figure) fill(of, to *series) {
	if of == nil {
		return
	}
	f.PerSecond, f.P50, f.P99, f.CPU = spreadOf(of.rate), spreadOf(of.p50), spreadOf(of.p99), spreadOf(of.cpu)
	f.Failures, f.Wrong, f.FirstFail = of.failures, of.wrong, of.why
	if to != nil {
		f.Ratio, f.P99Ratio, f.CPURatio = spreadOf(ratios(of.rate, to.rate)), spreadOf(ratios(of.p99, to.p99)), spreadOf(ratios(of.cpu, to.cpu))
		f.P50More = spreadOf(differences(of.p50, to.p50))
	}
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

var titles = map[load.Op]string{
	load.Connect: "New TCP connections (connect, reset)", load.Request: "New TCP connections with one request each",
	load.KeepAlive: "Requests on one open connection", load.Bulk: "Bulk throughput of one connection",
	load.Connected: "UDP ping-pong, connected socket", load.Datagram: "UDP ping-pong, sendto and recvfrom",
}

// Markdown writes the report for people.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d rounds of %.3g s each, all variants in turns of %s; client on CPU %d, server on CPU %d. Medians (least to greatest over the rounds).\n",
		r.Machine, r.Rounds, r.Seconds, slice, clientCPU, serverCPU)
	for _, op := range operations {
		r.table(&b, op)
	}
	r.runsTable(&b)
	b.WriteString("\nVariants:\n\n")
	for _, v := range r.Variants {
		fmt.Fprintf(&b, "- `%s`: %s", v.Name, v.What)
		if v.Base != direct {
			fmt.Fprintf(&b, "; compared with `%s`", v.Base)
		}
		b.WriteByte('\n')
	}
	for _, v := range r.Missing {
		fmt.Fprintf(&b, "- `%s`: %s: left out, its tool is not installed\n", v.Name, v.What)
	}
	b.WriteString("\nIPVS is not in every kernel; its behaviour is tested in a virtual machine, whose emulation gives no figures.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) table(b *strings.Builder, op load.Op) {
	unit, scale := "per second", 1.0
	if op == load.Bulk {
		unit, scale = "Gbit/s", 8e-9
	}
	begun := false
	for _, f := range r.Figures {
		if f.Operation != op {
			continue
		}
		if !begun {
			fmt.Fprintf(b, "\n### %s\n\n| | %s | ratio to direct | CPU µs each | ratio | p50 µs | more than direct | p99 µs | ratio | failed |\n|---|---|---|---|---|---|---|---|---|---|\n", titles[op], unit)
			begun = true
		}
		digits := 0
		if op == load.Bulk {
			digits = 2
		}
		fmt.Fprintf(b, "| %s | %s | %s ", f.Variant, f.PerSecond.text(scale, digits), f.Ratio.text(1, 3))
		if op == load.Bulk {
			b.WriteString("| | | | | | ")
		} else {
			fmt.Fprintf(b, "| %.2f | %s | %.1f | %s | %.0f | %.2f ", f.CPU.Median, f.CPURatio.text(1, 3),
				f.P50.Median, f.P50More.text(1, 1), f.P99.Median, f.P99Ratio.Median)
		}
		fmt.Fprintf(b, "| %s |\n", f.failed())
	}
}

func (f Figure) failed() string {
	switch {
	case f.Wrong > 0:
		return fmt.Sprintf("%d, and %d from elsewhere", f.Failures, f.Wrong)
	case f.Failures > 0:
		return fmt.Sprintf("%d (%s)", f.Failures, f.FirstFail)
	default:
		return "0"
	}
}

func (s Spread) text(scale float64, digits int) string {
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.Median*scale, digits, s.Min*scale, digits, s.Max*scale)
}
