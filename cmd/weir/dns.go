package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

// recordTypes are offered by completion; the proxy knows more.
var recordTypes = []string{"A", "AAAA", "CNAME", "NS", "PTR", "SOA", "SRV", "TXT"}

func (c *cli) dnsCommand() *cobra.Command {
	return c.noun("dns", "Ask this node's DNS proxy", c.dnsQueryCommand(), c.dnsExplainCommand(), c.dnsCacheCommand(), c.dnsTopCommand(),
		c.dnsUpstreamsCommand(), c.dnsTraceCommand(), c.dnsFlushCommand())
}

func (c *cli) dnsQueryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "query NAME [TYPE]",
		Short: "Show what the proxy answers to a name, and from where",
		Long: `Show what the proxy answers to a name, and from where: the cluster's own table,
the cache or an upstream. TYPE is A unless given. As with dig, the exit status
is 0 for every answer, NXDOMAIN too.`,
		Example: `  weir dns query web.shop.vip.weir.internal
  weir dns query _web._tcp.shop.vip.weir.internal SRV`,
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
			a, err := agent.DNSQuery(cmd.Context(), args[0], recordType)
			if err != nil {
				return err
			}
			return c.print(a, func(p *page) { answerPage(p, a) })
		},
	}
}

// answerPage writes records as zone files have them, with the rest in comments.
func answerPage(p *page, a api.DNSAnswer) {
	p.line(fmt.Sprintf("; %s %s: %s, from %s, in %s", a.Name, a.Type, a.Rcode, source(a.Source), a.Took))
	for _, section := range []struct {
		name    string
		records []string
	}{{"answer", a.Answer}, {"authority", a.Authority}, {"additional", a.Additional}} {
		if len(section.records) == 0 {
			continue
		}
		p.line("")
		p.line("; " + section.name)
		for _, record := range section.records {
			p.row(columns(record)...)
		}
	}
}

// source says where an answer is from.
func source(s string) string {
	switch s {
	case "cluster":
		return "the cluster's own names"
	case "cache":
		return "the cache"
	case "proxy":
		return "the proxy itself"
	case "":
		return "an unknown source"
	default:
		return "the upstream " + s
	}
}

// columns parts a record into owner, TTL, class, type and data.
func columns(record string) []any {
	var cells []any
	for range 4 {
		end := strings.IndexAny(record, " \t")
		if end < 0 {
			break
		}
		cells = append(cells, record[:end])
		record = strings.TrimLeft(record[end:], " \t")
	}
	return append(cells, record)
}

// completeQuery offers the names of virtual IPs, then types.
func (c *cli) completeQuery(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return c.complete(cmd, func(v api.VIPStatus) []string { return v.DNSNames })
	case 1:
		return recordTypes, cobra.ShellCompDirectiveNoFileComp
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}
