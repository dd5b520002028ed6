package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) vipConnsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "conns [NAME]",
		Short: "List the open connections of this node through VIPs",
		Long: `List the open connections that processes of this node have through VIPs, with
the process, the backend and the state of each; of one service, or of all.`,
		Example:           "  weir vip conns\n  weir vip conns web.shop -o json",
		Args:              arguments(0, 1, "at most one: NAME"),
		ValidArgsFunction: c.completeVIPs,
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			all, err := agent.Connections(cmd.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b api.Connection) int {
				return cmp.Or(cmp.Compare(a.Service, b.Service), a.Backend.Compare(b.Backend), a.Client.Compare(b.Client))
			})
			return c.print(all, func(p *page) { connectionsPage(p, all) })
		},
	}
}

func connectionsPage(p *page, all []api.Connection) {
	p.row("SERVICE", "PROTOCOL", "CLIENT", "VIP", "BACKEND", "STATE", "PROCESS")
	for _, x := range all {
		process := "-"
		if x.Process > 0 {
			process = fmt.Sprintf("%s[%d]", x.Command, x.Process)
		}
		from := "-"
		if x.Client.IsValid() {
			from = x.Client.String()
		}
		p.row(orDash(x.Service), orDash(string(x.Protocol)), from, x.VIP, x.Backend, orDash(x.State), process)
	}
}
