package main

import (
	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv/schedbench"
)

func scheduleCommand(show func(report, error) error) *cobra.Command {
	var o schedbench.Options
	c := &cobra.Command{
		Use: "schedule", Short: "How fast tasks are placed on a large fleet, in memory", Args: noArgs,
		Example: "  weir-bench schedule --nodes=5000 --tasks=10000",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := schedbench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Nodes, "nodes", 5000, "nodes of the fleet")
	c.Flags().IntVar(&o.Tasks, "tasks", 10000, "tasks to place")
	c.Flags().IntVar(&o.Racks, "racks", 75, "racks that the nodes are in")
	c.Flags().IntVar(&o.Rounds, "rounds", 5, "rounds, of which the medians are told")
	return c
}
