package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv/controllerbench"
)

func controllerCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := controllerbench.Options{Log: log}
	c := &cobra.Command{
		Use: "controller", Short: "A controller with many simulated nodes: how fast changes reach them, and what that costs", Args: noArgs,
		Example: "  weir-bench controller --nodes=100 --for=5s",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := controllerbench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Nodes, "nodes", 1000, "nodes that are simulated")
	c.Flags().IntVar(&o.Services, "services", 100, "services")
	c.Flags().IntVar(&o.Backends, "backends", 10, "backends of each service")
	c.Flags().IntVar(&o.Rate, "rate", 100, "changes of one backend per second")
	c.Flags().DurationVar(&o.For, "for", 20*time.Second, "how long")
	c.Flags().BoolVar(&o.Memory, "memory", false, "keep the store in memory instead of on disk")
	return c
}
