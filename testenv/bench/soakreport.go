package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// SoakReport counts what was done and what broke.
type SoakReport struct {
	Elapsed      time.Duration  `json:"elapsed_ns"`
	Changes      int            `json:"changes"`
	Kills        int            `json:"kills"`
	Migrations   int            `json:"migrations"`
	Upgrades     int            `json:"upgrades"` // programs of connect4 that were replaced
	Connections  uint64         `json:"connections"`
	Failures     map[string]int `json:"failures"`
	OpenRequests uint64         `json:"open_requests"`
	OpenFailures map[string]int `json:"open_failures"`
	Wrong        uint64         `json:"wrong_service"`
	P50          float64        `json:"p50_us"`
	P99          float64        `json:"p99_us"`
}

// Broken tells whether anything failed or went to the wrong service.
func (r *SoakReport) Broken() bool {
	return len(r.Failures) > 0 || len(r.OpenFailures) > 0 || r.Wrong > 0
}

// Markdown writes the report for people.
func (r *SoakReport) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s under load: %d changes of backends, %d kills, %d migrations of maps, %d upgrades of programs.\n\n",
		r.Elapsed.Round(time.Second), r.Changes, r.Kills, r.Migrations, r.Upgrades)
	b.WriteString("| | |\n|---|---|\n")
	fmt.Fprintf(&b, "| new connections | %d, p50 %.0f µs, p99 %.0f µs with a request |\n| of these failed | %s |\n", r.Connections, r.P50, r.P99, counts(r.Failures))
	fmt.Fprintf(&b, "| requests on the open connections | %d |\n| open connections broken | %s |\n", r.OpenRequests, counts(r.OpenFailures))
	fmt.Fprintf(&b, "| delivered to the wrong service | %d |\n", r.Wrong)
	_, err := io.WriteString(w, b.String())
	return err
}

// counts spells out how often each thing happened.
func counts(all map[string]int) string {
	if len(all) == 0 {
		return "0"
	}
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d × %s", all[why], why))
	}
	return strings.Join(parts, "; ")
}
