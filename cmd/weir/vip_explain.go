package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

// errStepFailed ends explain with status 1 after the steps were shown.
var errStepFailed = errors.New("the VIP does not work; see the last step")

func (c *cli) vipExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain NAME",
		Short: "Show why a VIP works or does not, step by step",
		Long: `Go the way from a VIP's name to its backends: name, service, address, backends,
health, reach, kernel, DNS. It stops at the first step that fails, with what was
found and what to do about it. NAME is a service (web.shop), a DNS name or an
address with a port. The exit status is 1 when a step fails.`,
		Example:           "  weir vip explain web.shop\n  weir vip explain web.shop.vip.weir.internal",
		Args:              arguments(1, 1, "one: NAME"),
		ValidArgsFunction: c.completeVIPs,
	}
	protocol := protocolFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkProtocol(cmd, protocol); err != nil {
			return err
		}
		agent, err := c.client()
		if err != nil {
			return err
		}
		steps, err := agent.VIPExplain(cmd.Context(), args[0], api.Protocol(*protocol))
		if err != nil {
			return err
		}
		if err := c.print(steps, func(p *page) { stepsPage(p, steps) }); err != nil {
			return err
		}
		if n := len(steps); n > 0 && !steps[n-1].OK {
			return errStepFailed
		}
		return nil
	}
	return cmd
}

func stepsPage(p *page, steps []api.VIPStep) {
	for _, s := range steps {
		verdict := "ok"
		if !s.OK {
			verdict = "FAILS"
		}
		p.row(s.Step, verdict, s.Evidence)
	}
	if n := len(steps); n > 0 && steps[n-1].Next != "" {
		p.line("")
		p.line("What to do: " + steps[n-1].Next)
	}
}

func (c *cli) vipTraceCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "trace VIP",
		Short: "Show which backend a client of this node would get, and why",
		Long: `Show which backend a client of this node would get at a VIP, and why. VIP is an
address with a port, or a service's name. The client is a socket bound to the
address of --client, or one that is bound to none, in the agent's network
namespace.`,
		Example:           "  weir vip trace 198.18.0.10:80\n  weir vip trace web.shop --client 10.80.0.11",
		Args:              arguments(1, 1, "one: VIP"),
		ValidArgsFunction: c.completeVIPs,
	}
	protocol := protocolFlag(cmd)
	cmd.Flags().StringVar(&from, "client", "", "address that the client's socket is bound to")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkProtocol(cmd, protocol); err != nil {
			return err
		}
		agent, err := c.client()
		if err != nil {
			return err
		}
		t, err := agent.VIPTrace(cmd.Context(), from, args[0], api.Protocol(*protocol))
		if err != nil {
			return err
		}
		return c.print(t, func(p *page) { tracePage(p, t) })
	}
	return cmd
}

func tracePage(p *page, t api.VIPTrace) {
	p.row("Client", t.Client)
	p.row("VIP", t.VIP.String()+" "+string(t.Protocol))
	p.row("Service", orDash(t.Service))
	p.row("Reason", t.Reason)
	p.line("")
	if len(t.Backends) == 0 {
		p.line("No backend: the connection is refused.")
		return
	}
	p.row("BACKEND", "SHARE")
	for _, b := range t.Backends {
		p.row(b.Address, percent(b.Share))
	}
}
