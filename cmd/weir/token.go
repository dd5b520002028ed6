package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// tokenCommand is of the tokens at the controllers that open connects to.
func (c *cli) tokenCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return c.noun("token", "Tokens that let nodes, controllers and people in",
		c.tokenListCommand(open), c.tokenCreateCommand(open), c.tokenRemoveCommand(open))
}

func (c *cli) tokenListCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Those that still let somebody in; their secrets are told to nobody", Example: "  weir token list", Args: arguments(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			all, err := cluster.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("ID", "ROLE", "USES LEFT", "NODE", "EXPIRES")
				for _, one := range all {
					uses := "any"
					if one.Uses > 0 {
						uses = plural(one.Uses, "use")
					}
					p.row(one.ID, one.Role, uses, orDash(one.Node), one.Expires.Local().Format(time.DateTime))
				}
			})
		},
	}
}

func (c *cli) tokenCreateCommand(open func() (*client.Cluster, error)) *cobra.Command {
	var r api.TokenRequest
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token; it is printed once",
		Example: "  weir token create --role agent --ttl 8h --uses 50\n  weir token create --role controller", Args: arguments(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			r.TTL = api.Duration(ttl)
			made, err := cluster.CreateToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(made, func(p *page) { p.line(made.Secret) })
		},
	}
	cmd.Flags().StringVar(&r.Role, "role", "agent", "agent, controller or operator")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it lets in, such as 8h (default: 1h, 15m for controllers)")
	cmd.Flags().IntVar(&r.Uses, "uses", 0, "how often it lets in; 0: without a limit")
	cmd.Flags().StringVar(&r.Node, "node", "", "the only node that it lets in")
	return cmd
}

func (c *cli) tokenRemoveCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use: "remove ID", Short: "Take a token back; who came in with it stays", Example: "  weir token remove e45s56y6", Args: arguments(1, 1, "one: ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			return cluster.DeleteToken(cmd.Context(), args[0])
		},
	}
}
