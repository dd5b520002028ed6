package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv/tracebench"
)

func flowsCommand(show func(report, error) error) *cobra.Command {
	o := tracebench.Options{}
	c := &cobra.Command{
		Use: "flows", Short: "What it costs to watch flows: new connections and bulk throughput", Args: noArgs,
		Example: "  weir-bench flows --rounds=20 --turn=200ms",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := tracebench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Rounds, "rounds", 30, "rounds of all ways")
	c.Flags().DurationVar(&o.Turn, "turn", 200*time.Millisecond, "of each kind of traffic, for each way in a round")
	return c
}
