package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) auditCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who wrote what in the cluster, and what was refused",
		Long:    `Show who wrote what in the cluster, and what was refused to whom and why, the newest first.`,
		Example: "  weir audit\n  weir audit --limit 1000 -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			records, err := cluster.Audit(cmd.Context(), limit)
			if err != nil {
				return err
			}
			return c.print(records, func(p *page) {
				p.row("TIME", "WHO", "FROM", "VERB", "WHAT", "REVISION", "REFUSED")
				for _, r := range records {
					revision := any("-")
					if r.Revision > 0 {
						revision = r.Revision
					}
					p.row(r.Time.Local().Format(time.DateTime), r.Subject, orDash(r.Address), r.Verb, r.Noun, revision, orDash(r.Refused))
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "records at most")
	return cmd
}
