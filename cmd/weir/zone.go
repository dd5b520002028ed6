package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) zoneCommand() *cobra.Command {
	return c.noun("zone", "Show what the security zones allow", c.zoneExplainCommand())
}

func (c *cli) zoneExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain FROM TO PORT",
		Short: "Show whether a flow may pass, and which rule decides",
		Long: `Show whether a new flow may pass, and which rule decides. FROM and TO are each
an address, a node or a zone; PORT is such as tcp/22, udp/53 or icmp. The exit
status is 0 for either verdict.`,
		Example: `  weir zone explain 203.0.113.9 private tcp/22
  weir zone explain any p1 tcp/443 -o json`,
		Args: arguments(3, 3, "three: FROM TO PORT"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := api.ParsePortRange(args[2]); err != nil {
				return usage(cmd, "PORT: %v", err)
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			x, err := agent.ZoneExplain(cmd.Context(), args[0], args[1], args[2])
			if err != nil {
				return err
			}
			return c.print(x, func(p *page) { explanationPage(p, x) })
		},
	}
}

func explanationPage(p *page, x api.ZoneExplanation) {
	p.row("Verdict", strings.ToUpper(string(x.Verdict)))
	p.row("From", end(x.From, x.FromZones))
	p.row("To", end(x.To, x.ToZones))
	p.row("Port", x.Port)
	p.row("Rule", orDash(x.Rule))
	p.row("Reason", x.Reason)
	p.row("Judged by", orDash(list(x.Nodes)))
}

// end is one end of a flow with its zones.
func end(name string, zones []string) string {
	switch {
	case len(zones) == 0:
		return name + " (in no zone)"
	case len(zones) == 1 && zones[0] == name:
		return name
	default:
		return fmt.Sprintf("%s (in %s)", name, list(zones))
	}
}
