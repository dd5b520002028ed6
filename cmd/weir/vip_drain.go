package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) vipDrainCommand() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "drain NAME BACKEND",
		Short: "Give a backend no new connections from this node",
		Long: `Give a backend no new connections from this node. Those that it has live until
they end, or until the service's drain time is over. It lasts until --undo, also
over a restart of the agent, and is shown by weir vip show. To drain a backend
on all nodes, write state: draining into its service's document.`,
		Example: "  weir vip drain web.shop 10.80.0.11:8080\n  weir vip drain web.shop 10.80.0.11:8080 --undo",
		Args:    arguments(2, 2, "two: NAME BACKEND"),
	}
	protocol := protocolFlag(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "give it connections again")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return c.completeVIPs(cmd, args, text)
		}
		return c.complete(cmd, func(v api.VIPStatus) (all []string) {
			for _, b := range v.Backends {
				if vipName(v) == args[0] {
					all = append(all, b.Address.String())
				}
			}
			return all
		})
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		backend, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usage(cmd, "BACKEND %q is not address:port", args[1])
		}
		v, err := c.pickVIP(cmd, args[0], protocol)
		if err != nil {
			return err
		}
		agent, err := c.client()
		if err != nil {
			return err
		}
		v, err = agent.Drain(cmd.Context(), api.Drain{Service: vipName(v), Protocol: v.Protocol, Backend: backend, Undo: undo})
		if err != nil {
			return err
		}
		return c.print(v, func(p *page) {
			for _, b := range v.Backends {
				if b.Address == backend {
					p.line(fmt.Sprintf("%s of %s is %s, with %s open from this node", backend, vipName(v), b.State, plural(int(b.Open), "connection")))
				}
			}
		})
	}
	return cmd
}
