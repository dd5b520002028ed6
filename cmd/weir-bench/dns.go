package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv/dnsbench"
)

func dnsCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := dnsbench.Options{Log: log}
	c := &cobra.Command{
		Use: "dns", Short: "Names beside other DNS servers, and under too many questions", Args: noArgs,
		Example: "  scripts/bench-packages bin/peers\n  weir-bench dns --rounds=3 --each=1s --only=small,forwarded",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := dnsbench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Rounds, "rounds", 5, "rounds of all servers")
	c.Flags().DurationVar(&o.Each, "each", 3*time.Second, "of asking, for each server and kind of question in a round")
	c.Flags().IntVar(&o.Names, "names", 100_000, "names of the large zone")
	c.Flags().DurationVar(&o.Overload, "overload", 30*time.Second, "of twice the questions that can be answered")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "parts to measure (default all)")
	c.Flags().StringVar(&o.Peers, "peers", "bin/peers", "folder that scripts/bench-packages has filled")
	return c
}
