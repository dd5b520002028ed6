package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) zoneCommand() *cobra.Command {
	return c.noun("zone", "Show, prove and change what the security zones allow",
		c.zoneListCommand(), c.zoneCheckCommand(), c.zoneDiffCommand(), c.zoneApplyCommand(), c.zoneConfirmCommand(),
		c.zoneHistoryCommand(), c.zoneRollbackCommand(), c.zoneMatrixCommand(), c.zoneExplainCommand(), c.zoneDropsCommand())
}

func noFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) zoneListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the zones with their members, and what each rule has decided",
		Long: `Show the zones with their members, and what each rule has decided on this node:
packets that open a flow, since the rules were made.`,
		Example: "  weir zone list\n  weir zone list -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			s, err := agent.Zones(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(s, func(p *page) { zonesPage(p, s) })
		},
	}
}

func zonesPage(p *page, s api.ZonesStatus) {
	p.row("Mode", s.Mode)
	p.row("Backend", s.Backend+why(s.Reason))
	switch {
	case !s.Policy:
		p.row("Policy", "none: everything passes")
	case s.File == "":
		p.row("Policy", "the last one on disk; the state's files are not read yet")
	default:
		p.row("Policy", fmt.Sprintf("%s:%d", s.File, s.Line))
	}
	if w := s.Pending; w != nil {
		p.row("Pending", fmt.Sprintf("change %d by %s, until %s: %s", w.ID, w.By, clock(w.Deadline), w.Summary))
	}
	if len(s.Zones) > 0 {
		p.line("")
		p.row("ZONE", "HERE", "NODES", "NETWORKS")
	}
	for _, z := range s.Zones {
		here := "-"
		if z.Here {
			here = "yes"
		}
		p.row(z.Name, here, orDash(some(z.Nodes, len(z.Nodes))), orDash(some(z.Networks, z.Size)))
	}
	if len(s.Rules) > 0 {
		p.line("")
		p.row("RULE", "SECTION", "VERDICT", "PACKETS", "BYTES")
	}
	for _, r := range s.Rules {
		section := r.Section
		if section == "" {
			section = "built in"
		}
		p.row(r.Name, section, r.Verdict, r.Packets, r.Bytes)
	}
}

// some lists the first of n values.
func some[T any](values []T, n int) string {
	const most = 5
	if n <= most {
		return list(values)
	}
	return fmt.Sprintf("%s, %d more", list(values[:min(most, len(values))]), n-min(most, len(values)))
}

func why(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + oneLine(reason) + ")"
}

// clock is a time for people who are in a hurry.
func clock(t time.Time) string { return t.Local().Format(time.TimeOnly) }

// flowText is one flow of a difference.
func flowText(f api.ZoneFlow) string {
	text := fmt.Sprintf("%s → %s: %s", f.From, f.To, strings.ReplaceAll(list(f.Ports), ",", ""))
	for _, rest := range []struct{ name, value string }{{"", f.Family}, {"via ", f.Via}} {
		if rest.value != "" {
			text += " (" + rest.name + rest.value + ")"
		}
	}
	return text
}

func diffPage(p *page, d api.ZoneDiff) {
	for _, f := range d.Allowed {
		p.line("+ " + flowText(f))
	}
	for _, f := range d.Denied {
		p.line("- " + flowText(f))
	}
	if d.Empty() {
		p.line("no flow is opened or closed")
	}
}
