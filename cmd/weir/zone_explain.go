package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) zoneExplainCommand() *cobra.Command {
	via := ""
	cmd := &cobra.Command{
		Use:   "explain FROM TO PORT",
		Short: "Show whether a flow may pass, and which rule decides",
		Long: `Show whether a new flow may pass, which rule decides and where it stands in
the policy, and on which nodes and hook. FROM and TO are each an address, a
network, a node, a zone, a list or a service; PORT is such as tcp/22, udp/53 or
icmp. The exit status is 0 for either verdict.`,
		Example: `  weir zone explain 203.0.113.9 private tcp/22
  weir zone explain any p1 tcp/443 -o json
  weir zone explain 203.0.113.9 web.shop tcp/8080 --via p1`,
		Args:              arguments(3, 3, "three: FROM TO PORT"),
		ValidArgsFunction: noFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := api.ParsePortRange(args[2]); err != nil {
				return usage(cmd, "PORT: %v", err)
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			x, err := agent.ZoneExplain(cmd.Context(), args[0], args[1], args[2], via)
			if err != nil {
				return err
			}
			return c.print(x, func(p *page) { explanationPage(p, x) })
		},
	}
	cmd.Flags().StringVar(&via, "via", "", "node, or zone of nodes, that passes the flow on")
	return cmd
}

func explanationPage(p *page, x api.ZoneExplained) {
	p.row("Verdict", strings.ToUpper(string(x.Verdict)))
	p.row("From", end(x.From, x.FromZones))
	p.row("To", end(x.To, x.ToZones))
	p.row("Port", x.Port)
	p.row("Rule", orDash(x.Rule))
	if x.File != "" {
		p.row("Written at", fmt.Sprintf("%s:%d (%s)", x.File, x.Line, x.Field))
	}
	p.row("Reason", x.Reason)
	by := orDash(list(x.Nodes))
	if x.Hook != "" && len(x.Nodes) > 0 {
		by += ", hook " + x.Hook
	}
	p.row("Judged by", by)
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
