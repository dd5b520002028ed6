package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) vipCommand() *cobra.Command {
	return c.noun("vip", "Virtual IPs: what leads to which backends, and why", c.vipListCommand(), c.vipShowCommand(),
		c.vipExplainCommand(), c.vipTraceCommand(), c.vipConnsCommand(), c.vipTopCommand(), c.vipDrainCommand())
}

func (c *cli) vipListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the services that this node balances",
		Example: "  weir vip list\n  weir vip list -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.vips(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("NAME", "PROTOCOL", "ADDRESSES", "UP", "OPEN", "CONNECTIONS", "REFUSED", "STATE")
				for _, v := range all {
					p.row(vipName(v), v.Protocol, orDash(list(v.Addresses)), fmt.Sprintf("%d/%d", up(v), len(v.Backends)),
						v.Open, v.Connections, v.Refused+v.Limited, vipState(v))
				}
			})
		},
	}
}

func (c *cli) vipShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a service, its backends and why one is not up",
		Long: `Show a service, its backends and why one is not up. NAME is name.namespace, or
the name alone in the namespace "default".`,
		Example:           "  weir vip show web.shop\n  weir vip show dns.infra --protocol udp",
		Args:              arguments(1, 1, "one: NAME"),
		ValidArgsFunction: c.completeVIPs,
	}
	protocol := protocolFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v, err := c.pickVIP(cmd, args[0], protocol)
		if err != nil {
			return err
		}
		return c.print(v, func(p *page) { vipPage(p, v) })
	}
	return cmd
}

// protocolFlag adds --protocol.
func protocolFlag(cmd *cobra.Command) *string {
	protocol := cmd.Flags().String("protocol", "", "tcp or udp, where a service has both")
	_ = cmd.RegisterFlagCompletionFunc("protocol", cobra.FixedCompletions(protocols(), cobra.ShellCompDirectiveNoFileComp))
	return protocol
}

func protocols() []string { return []string{string(api.TCP), string(api.UDP)} }

func checkProtocol(cmd *cobra.Command, protocol *string) error {
	if *protocol != "" && !slices.Contains(protocols(), *protocol) {
		return usage(cmd, "--protocol %q is neither tcp nor udp", *protocol)
	}
	return nil
}

// pickVIP asks the agent for the service of the name.
func (c *cli) pickVIP(cmd *cobra.Command, name string, protocol *string) (api.VIPStatus, error) {
	if err := checkProtocol(cmd, protocol); err != nil {
		return api.VIPStatus{}, err
	}
	all, err := c.vips(cmd.Context())
	if err != nil {
		return api.VIPStatus{}, err
	}
	return pick(all, name, api.Protocol(*protocol))
}

// pick finds the service by name and protocol; an empty protocol is any, if
// there is but one.
func pick(all []api.VIPStatus, name string, protocol api.Protocol) (api.VIPStatus, error) {
	var found []api.VIPStatus
	var elsewhere []string
	for _, v := range all {
		named := vipName(v) == name || v.Name == name && v.Namespace == api.DefaultNamespace
		if named && (protocol == "" || v.Protocol == protocol) {
			found = append(found, v)
		} else if v.Name == name && !slices.Contains(elsewhere, vipName(v)) {
			elsewhere = append(elsewhere, vipName(v))
		}
	}
	what := strings.TrimSpace(fmt.Sprintf("%s service %q", protocol, name))
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && len(elsewhere) > 0:
		return api.VIPStatus{}, fmt.Errorf("there is no %s; did you mean %s?", what, strings.Join(elsewhere, " or "))
	case len(found) == 0:
		return api.VIPStatus{}, fmt.Errorf("there is no %s; weir vip list shows what there is", what)
	default:
		return api.VIPStatus{}, fmt.Errorf("%w: the service %q has tcp and udp: add --protocol", errUsage, name)
	}
}

func vipPage(p *page, v api.VIPStatus) {
	balance := string(v.Balance)
	if v.Affinity > 0 {
		balance += fmt.Sprintf(", a client stays for %s", v.Affinity)
	}
	if v.Prefer != "" {
		balance += fmt.Sprintf(", backends in the same %s first", v.Prefer)
	}
	p.row("Name", vipName(v))
	p.row("Protocol", v.Protocol)
	p.row("Balance", balance)
	p.row("VIPs", orDash(list(v.VIPs)))
	p.row("Addresses", orDash(list(v.Addresses)))
	p.row("DNS names", orDash(list(v.DNSNames)))
	p.row("State", vipState(v))
	p.row("Connections", connections(v))
	if v.Edge != nil {
		p.row("From outside", edgeText(*v.Edge))
	}
	p.line("")
	if len(v.Backends) == 0 {
		p.line("No backends: connections are refused.")
		return
	}
	p.row("BACKEND", "NODE", "WEIGHT", "SHARE", "STATE", "OPEN", "CONNECTIONS", "FAILED", "RESET", "REASON")
	for _, b := range v.Backends {
		p.row(b.Address, orDash(b.Node), b.Weight, percent(b.Share), b.State, b.Open, b.Connections, b.Failures, b.Reset,
			strings.Trim(b.Reason+"; "+b.Note, "; "))
	}
}

// percent to one digit, without a zero behind the point.
func percent(share float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(share, 'f', 1, 64), ".0") + "%"
}

// connections is one phrase about how many there are and were.
func connections(v api.VIPStatus) string {
	open := strconv.FormatUint(v.Open, 10)
	if v.MaxConnections > 0 {
		open += fmt.Sprintf(" of at most %d", v.MaxConnections)
	}
	text := fmt.Sprintf("%s open, %d in all, %d refused", open, v.Connections, v.Refused)
	if v.Limited > 0 {
		text += fmt.Sprintf(", %d over the limit", v.Limited)
	}
	return text
}

func edgeText(e api.Edge) string {
	deliver := e.Deliver
	if deliver == "" {
		deliver = api.DSR
	}
	from := "from anywhere"
	if len(e.Allow) > 0 {
		from = "from " + list(e.Allow)
	}
	return fmt.Sprintf("%s, %s", deliver, from)
}

// vips lists the services; none is an empty list in every format.
func (c *cli) vips(ctx context.Context) ([]api.VIPStatus, error) {
	agent, err := c.client()
	if err != nil {
		return nil, err
	}
	all, err := agent.VIPs(ctx)
	if all == nil {
		all = []api.VIPStatus{}
	}
	return all, err
}

func vipName(v api.VIPStatus) string { return v.Name + "." + v.Namespace }

func up(v api.VIPStatus) int {
	n := 0
	for _, b := range v.Backends {
		if b.State == api.Up {
			n++
		}
	}
	return n
}

// vipState is one phrase on whether connections are served.
func vipState(v api.VIPStatus) string {
	switch {
	case !v.Programmed:
		return "not programmed"
	case len(v.Backends) == 0:
		return "no backends"
	case up(v) == 0:
		return "no backend is up"
	default:
		return "ok"
	}
}

// completionTimeout bounds what a press of the tab key may wait.
const completionTimeout = 2 * time.Second

// completeVIPs offers the names of services; without an agent, none.
func (c *cli) completeVIPs(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd, func(v api.VIPStatus) []string { return []string{vipName(v)} })
}

// complete offers texts of every service, each with what it is.
func (c *cli) complete(cmd *cobra.Command, texts func(api.VIPStatus) []string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	all, err := c.vips(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var offers []cobra.Completion
	for _, v := range all {
		for _, text := range texts(v) {
			offers = append(offers, cobra.CompletionWithDesc(text, fmt.Sprintf("%s, %d of %s up", v.Protocol, up(v), plural(len(v.Backends), "backend"))))
		}
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}
