package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv/zonebench"
)

func zonesCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := zonebench.Options{Log: log}
	c := &cobra.Command{
		Use: "zones", Short: "A large policy: how fast it changes, and connections through it", Args: noArgs,
		Example: "  weir-bench zones --members=1000 --rounds=10",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := zonebench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Zones, "zones", 200, "zones of the policy")
	c.Flags().IntVar(&o.Rules, "rules", 2000, "rules of the policy")
	c.Flags().IntVar(&o.Members, "members", 100000, "addresses in all zones")
	c.Flags().IntVar(&o.Changes, "changes", 100, "times that one member comes or goes")
	c.Flags().IntVar(&o.Rounds, "rounds", 60, "rounds of all ways to let connections pass")
	c.Flags().DurationVar(&o.Turn, "turn", 30*time.Millisecond, "of connecting, for each way and target in a round")
	return c
}
