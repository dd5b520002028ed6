package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api/client"
)

// controllerCommand is of the controllers that open connects to.
func (c *cli) controllerCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return c.noun("controller", "The controllers of the cluster",
		c.controllerListCommand(open), c.controllerRemoveCommand(open), c.controllerBackupCommand(open))
}

func (c *cli) controllerListCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Who they are, which leads, which answer", Example: "  weir controller list", Args: arguments(0, 0, "none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			all, err := cluster.Controllers(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("NAME", "URL", "STATE", "LEADER", "VERSION")
				for _, one := range all {
					state, leader := "away", ""
					if one.Healthy {
						state = "ready"
					}
					if one.Leader {
						leader = "leader"
					}
					p.row(one.Name, one.URL, state, orDash(leader), orDash(one.Version))
				}
			})
		},
	}
}

func (c *cli) controllerRemoveCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a controller out, unless that costs the quorum",
		Long: `Take a controller out: its vote, its certificate and its place. It is refused
where too few would be left that answer, and by the controller itself.`,
		Example: "  weir controller remove c3", Args: arguments(1, 1, "one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			return cluster.RemoveController(cmd.Context(), args[0])
		},
	}
}

func (c *cli) controllerBackupCommand(open func() (*client.Cluster, error)) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a snapshot of the whole store to a new file",
		Long: `Write a snapshot of the whole store to a new file, for weir-controller restore.
Keep ca.key of a controller's data folder too: without it no certificate can be
signed after a restore.`,
		Example: "  weir controller backup weir.db", Args: arguments(1, 1, "one: FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := open()
			if err != nil {
				return err
			}
			defer cluster.Close()
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("back up: %w", err)
			}
			err = cluster.Backup(cmd.Context(), f)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				_ = os.Remove(args[0]) // a part is none
			}
			return err
		},
	}
}
