package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) dnsTraceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "trace NAME [TYPE]",
		Short: "Follow a question on its way, and ask every upstream that it may take",
		Long: `Follow a question on its way: the cluster's names, the cache, the forward zone.
Then every upstream of that zone is asked, whatever the cache has, to compare
what they say and how long they take. A cluster's name is never asked of anybody.
TYPE is A unless given.`,
		Example: `  weir dns trace example.com
  weir dns trace db.corp.example AAAA`,
		Args:              arguments(1, 2, "one or two: NAME [TYPE]"),
		ValidArgsFunction: c.completeQuery,
		RunE: func(cmd *cobra.Command, args []string) error {
			recordType := "A"
			if len(args) > 1 {
				recordType = strings.ToUpper(args[1])
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			t, err := agent.DNSTrace(cmd.Context(), args[0], recordType)
			if err != nil {
				return err
			}
			return c.print(t, func(p *page) { dnsTracePage(p, t) })
		},
	}
}

func dnsTracePage(p *page, t api.DNSTrace) {
	p.row("Question", t.Name+" "+t.Type)
	for _, s := range t.Steps {
		p.row(strings.ToUpper(s.Step[:1])+s.Step[1:], s.Verdict)
	}
	if len(t.Upstreams) > 0 {
		p.line("")
		p.row("UPSTREAM", "OVER", "TOOK", "USUALLY", "RCODE", "ANSWERS", "VERDICT")
	}
	for _, u := range t.Upstreams {
		took, usual := "-", "-"
		if u.Took > 0 {
			took = u.Took.String()
		}
		if u.Usual > 0 {
			usual = u.Usual.String()
		}
		p.row(u.Upstream, u.Protocol, took, usual, orDash(u.Rcode), len(u.Answer), u.Verdict)
	}
	p.line("")
	p.line(fmt.Sprintf("Clients get %s, from %s, in %s:", t.Answer.Rcode, source(t.Answer.Source), t.Answer.Took))
	if len(t.Answer.Answer) == 0 {
		p.line("  no records")
	}
	for _, r := range t.Answer.Answer {
		p.line("  " + strings.Join(strings.Fields(r), " "))
	}
}
