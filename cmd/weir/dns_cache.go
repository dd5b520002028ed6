package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) dnsCacheCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "cache [NAME]",
		Short: "List the answers that the proxy keeps",
		Long: `List the answers about names outside the cluster that the proxy keeps: of a
name and all below it, or of every name. An answer with a negative TTL is past
its end and serves only while no upstream answers.`,
		Example: "  weir dns cache\n  weir dns cache example.com --limit 10 -o json",
		Args:    arguments(0, 1, "at most one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usage(cmd, "--limit %d is below 1", limit)
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			all, err := agent.DNSCache(cmd.Context(), append(args, "")[0], limit)
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("NAME", "TYPE", "RCODE", "TTL", "AGE", "HITS", "UPSTREAM", "ANSWERS")
				for _, e := range all {
					p.row(e.Name, e.Type, e.Rcode, e.TTL, e.Age, e.Hits, orDash(e.Upstream), len(e.Answer))
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many entries to show")
	return cmd
}

func (c *cli) dnsExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "explain NAME",
		Short:   "Show where the answers to a name come from, and what is left out",
		Example: "  weir dns explain web.shop.vip.weir.internal",
		Args:    arguments(1, 1, "one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			x, err := agent.DNSExplain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(x, func(p *page) { dnsExplanationPage(p, x) })
		},
	}
}

func dnsExplanationPage(p *page, x api.DNSExplanation) {
	p.row("Name", x.Name)
	p.row("Status", x.Status)
	p.row("Zone", orDash(x.Zone+x.ForwardZone))
	if x.Entry != "" {
		p.row("Answered by", x.Entry)
	}
	if len(x.Upstreams) > 0 {
		p.row("Upstreams", list(x.Upstreams))
	}
	if x.Reason != "" {
		p.row("Reason", x.Reason)
	}
	if len(x.Records)+len(x.LeftOut) > 0 {
		p.line("")
		p.row("RECORD", "FROM", "LEFT OUT BECAUSE")
	}
	for _, r := range append(slices.Clone(x.Records), x.LeftOut...) {
		p.row(strings.Join(strings.Fields(r.Record), " "), r.Source, r.Reason)
	}
}

func (c *cli) dnsTopCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "top",
		Short:   "List the names that are asked for most",
		Example: "  weir dns top\n  weir dns top --limit 5",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usage(cmd, "--limit %d is below 1", limit)
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			all, err := agent.DNSTop(cmd.Context(), limit)
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("NAME", "TYPE", "QUERIES")
				for _, t := range all {
					p.row(t.Name, t.Type, t.Queries)
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many names to show")
	return cmd
}

func (c *cli) dnsUpstreamsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "upstreams",
		Short:   "List the servers that the proxy asks, and how they do",
		Example: "  weir dns upstreams\n  weir dns upstreams -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			all, err := agent.DNSUpstreams(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("UPSTREAM", "ZONES", "ROUND TRIP", "QUERIES", "HEDGES", "FAILED", "STATE")
				for _, u := range all {
					state := "ok"
					switch {
					case u.Looped:
						state = "leads back to this proxy"
					case u.Down:
						state = "down"
					}
					p.row(u.Upstream, list(u.Zones), u.RoundTrip, u.Queries, u.Hedges, u.Failed, state)
				}
			})
		},
	}
}

func (c *cli) dnsFlushCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "flush [NAME]",
		Short:   "Forget the answers to a name and those below it, or all",
		Example: "  weir dns flush example.com\n  weir dns flush",
		Args:    arguments(0, 1, "at most one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			flushed, err := agent.DNSFlush(cmd.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			return c.print(flushed, func(p *page) { p.line(fmt.Sprintf("%s forgotten", plural(flushed.Entries, "answer"))) })
		},
	}
}
