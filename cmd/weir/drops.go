package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) dropsCommand() *cobra.Command {
	var w flowWatch
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Watch what the kernel throws away, and why",
		Long: `Watch the packets that the kernel of this node throws away: its own reason in
words, whose packets they were, which rule of the zones it was with file and line,
and what to do. What healthy traffic has always (packets for others, duplicates)
is left out. weir zone drops shows what the zones alone have dropped, the last ones
too.`,
		Example: "  weir drops -f\n  weir drops --for 30s --to app=/shop/web\n  weir drops -f --protocol udp -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(cmd); err != nil {
				return err
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			return c.watchFlows(cmd.Context(), w, agent.Drops, c.dropTable)
		},
	}
	w.flags(c, cmd)
	return cmd
}

func (c *cli) dropTable(p *page, lines []api.FlowLine) {
	p.row("TIME", "REASON", "PROTOCOL", "FROM", "TO", "INTERFACE", "WHY", "WHAT TO DO")
	for _, line := range lines {
		d := line.Drop
		if d == nil {
			continue
		}
		p.row(d.Time.Local().Format(time.TimeOnly), d.Reason, d.Protocol, endText(d.From), endText(d.To), orDash(d.Interface), dropWhy(d), d.Advice)
	}
}

// dropLine is a drop in one line.
func dropLine(d *api.Drop) string {
	text := fmt.Sprintf("%s  %-16s %s %s → %s", d.Time.Local().Format("15:04:05.000"), d.Reason, d.Protocol, endText(d.From), endText(d.To))
	if d.Interface != "" {
		text += " at " + d.Interface
	}
	text += ": " + dropWhy(d)
	if d.Advice != "" {
		text += " → " + d.Advice
	}
	return text
}

func dropWhy(d *api.Drop) string {
	if d.File == "" {
		return d.Text
	}
	return fmt.Sprintf("%s (%s:%d)", d.Text, d.File, d.Line)
}
