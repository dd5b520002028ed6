package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) zoneDropsCommand() *cobra.Command {
	var follow, accepted bool
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Show who is turned away, and by which rule",
		Long: `Show the last packets that the zones have dropped on this node, or would drop
where the mode is observe, with the rule and whose the addresses are; with -f
those that come from now on. At most 10 packets a second of each rule are
reported: the counters of weir zone list have all.`,
		Example: "  weir zone drops\n  weir zone drops -f\n  weir zone drops -f --accepted -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if follow && c.output == "yaml" {
				return usage(cmd, "-f writes a table, or JSON a line with -o json")
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			wanted := func(d api.ZoneDrop) bool { return accepted || d.Verdict != "accept" }
			if follow {
				return c.followDrops(cmd.Context(), agent.FollowZoneDrops, wanted)
			}
			last, err := agent.ZoneDrops(cmd.Context())
			if err != nil {
				return err
			}
			all := []api.ZoneDrop{}
			for _, d := range last {
				if wanted(d) {
					all = append(all, d)
				}
			}
			return c.print(all, func(p *page) {
				p.row("TIME", "RULE", "VERDICT", "HOOK", "PROTOCOL", "FROM", "TO")
				for _, d := range all {
					p.row(d.Time.Local().Format(time.TimeOnly), d.Rule, d.Verdict, d.Hook, d.Protocol, whose(d.From, d.FromIs), whose(d.To, d.ToIs))
				}
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show those that come, until interrupted")
	cmd.Flags().BoolVar(&accepted, "accepted", false, "show what rules with log: true let pass as well")
	return cmd
}

func (c *cli) followDrops(ctx context.Context, follow func(context.Context, func(api.ZoneDrop) error) error, wanted func(api.ZoneDrop) bool) error {
	return follow(ctx, func(d api.ZoneDrop) error {
		if !wanted(d) {
			return nil
		}
		line := fmt.Sprintf("%s  %-7s %-16s %-7s %s %s → %s", d.Time.Local().Format(time.TimeOnly), d.Verdict, d.Rule, d.Hook, d.Protocol, whose(d.From, d.FromIs), whose(d.To, d.ToIs))
		if c.output == "json" {
			text, err := json.Marshal(d)
			if err != nil {
				return err
			}
			line = string(text)
		}
		if _, err := fmt.Fprintln(c.stdout, line); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	})
}

// whose is an address with what is known of it.
func whose(at netip.AddrPort, is api.ZoneIdentity) string {
	text := at.Addr().String()
	if at.Port() != 0 {
		text = at.String()
	}
	var known []string
	known = append(append(known, is.Nodes...), is.Apps...)
	if len(is.Zones) > 0 {
		known = append(known, "in "+strings.Join(is.Zones, " and "))
	}
	if len(known) > 0 {
		text += " (" + strings.Join(known, ", ") + ")"
	}
	return text
}
