package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api/client"
)

func (c *cli) loginCommand() *cobra.Command {
	var token, name string
	cmd := &cobra.Command{
		Use:   "login URL…",
		Short: "Log in to a cluster with an operator's token",
		Long: `Log in to a cluster with an operator's token, as weir-controller init and weir
token create --role operator print it. The token names the cluster's authority:
nothing is sent to anybody else. What is needed from then on is kept for 12 hours
in ~/.config/weir/contexts.yaml (or $WEIR_CONTEXTS), which you alone can read, and
the context becomes the current one. Give several URLs where there are several
controllers.`,
		Example: "  weir login https://10.80.0.2:8443 --token weir1.…\n  weir login https://10.80.0.2:8443 https://10.80.0.3:8443 --name lab",
		Args:    arguments(1, 16, "at least one: URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if token == "" {
				token = c.getenv("WEIR_TOKEN")
			}
			if token == "" {
				return usage(cmd, "--token, or the variable WEIR_TOKEN, is needed")
			}
			all, err := c.readContexts()
			if err != nil {
				return err
			}
			o, expires, err := client.Login(cmd.Context(), args, token)
			if err != nil {
				return err
			}
			entry := contextEntry{Name: name, Controllers: args, ClusterID: o.ClusterID, CA: string(o.CA), Token: o.Token, Expires: expires}
			if old, err := all.find(name); err == nil {
				*old = entry
			} else {
				all.Contexts = append(all.Contexts, entry)
			}
			all.Current = name
			if err := c.writeContexts(all); err != nil {
				return err
			}
			fmt.Fprintf(c.stderr, "logged in to cluster %s as context %s until %s\n", o.ClusterID, name, expires.Local().Format(time.DateTime))
			return nil
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "operator's token (environment: WEIR_TOKEN, which no list of processes shows)")
	cmd.Flags().StringVar(&name, "name", "default", "name of the context")
	return cmd
}
