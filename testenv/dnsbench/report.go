package dnsbench

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the figures and the bars as tables.
func (r *Result) Markdown(w io.Writer) error {
	var b strings.Builder
	if len(r.Rows) > 0 {
		b.WriteString("| part | question | server | answers/s (least–most) | CPU µs per answer (least–most) | lost | memory, MiB |\n|---|---|---|---|---|---|---|\n")
	}
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %.0f (%.0f–%.0f) | %.1f (%.1f–%.1f) | %.2f%% | %d |\n", row.Part, row.Kind, row.Server,
			row.Rate.Median, row.Rate.Min, row.Rate.Max, row.CPU.Median, row.CPU.Min, row.CPU.Max, 100*row.Lost, row.PSS>>20)
	}
	if len(r.Bars) > 0 {
		b.WriteString("\n| bar | wanted | measured (least–most) | |\n|---|---|---|---|\n")
	}
	for _, bar := range r.Bars {
		sign, verdict := "≥", "missed"
		if bar.Most {
			sign = "≤"
		}
		if bar.Met() {
			verdict = "met"
		}
		got := fmt.Sprintf("%.2f", bar.Got.Median)
		if bar.Got.Min != bar.Got.Max {
			got += fmt.Sprintf(" (%.2f–%.2f)", bar.Got.Min, bar.Got.Max)
		}
		fmt.Fprintf(&b, "| %s | %s %g%s | %s%s | %s |\n", bar.What, sign, bar.Want, bar.Unit, got, bar.Unit, verdict)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(&b, "\nLeft out: %s.\n", strings.Join(r.Missing, ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
