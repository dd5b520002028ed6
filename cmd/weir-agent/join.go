package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/agent"
)

// joinCommand makes the node a member of a cluster.
func joinCommand(flags *configFlags) *cobra.Command {
	var o agent.JoinOptions
	cmd := &cobra.Command{
		Use:   "join URL... --token TOKEN",
		Short: "Make this node a member of a cluster, whose controllers then say what it serves",
		Long: `Make this node a member of a cluster, whose controllers then say what it serves.

The token (weir token create) names the cluster's authority: nothing is sent to
a controller that is of another one. The node's key is made here, in data_dir,
and never leaves it. Afterwards the agent needs no key of its file to find its
controllers; restart it. A node that has joined before keeps its id, and may
have another address.`,
		Example: "  weir-agent join https://10.0.0.2:8443 --token weir1.abc… && systemctl restart weir-agent",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: give the URL of a controller", errUsage)
			}
			if o.Token == "" {
				return fmt.Errorf("%w: --token is missing", errUsage)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := flags.load()
			if err != nil {
				return err
			}
			o.Controllers = args
			cluster, err := agent.Join(cmd.Context(), config, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "node %s has joined the cluster %s\n", config.Node.Name, cluster)
			return nil
		},
	}
	cmd.Flags().StringVar(&o.Token, "token", "", "token that lets the node in")
	cmd.Flags().BoolVar(&o.Replace, "replace", false, "take the name from another node that has it")
	return cmd
}
