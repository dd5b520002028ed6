// Command weir-agent keeps one node as wanted: its zone rules, virtual IPs and
// DNS names.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/version"
)

// errUsage marks a wrong use of the command line: exit 2.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "weir-agent:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "weir-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var flags configFlags
	var takeOver bool
	root := &cobra.Command{
		Use:   "weir-agent",
		Short: "Keep this node's zones, virtual IPs and DNS names as wanted",
		Long: `Keep this node's zones, virtual IPs and DNS names as wanted.

Every key of the configuration file is also a flag (--dns-listen) and an
environment variable (WEIR_DNS_LISTEN). A flag beats the environment, which
beats the file. When the file changes, or at SIGHUP, dns.upstreams, dns.forward,
dns.access and dns.transfer are taken over; the rest needs a restart.`,
		Example: `  weir-agent --config /etc/weir/agent.yaml
  weir-agent --node-name a1 --state /etc/weir/state.d --zones-mode observe
  weir-agent --takeover
  weir-agent cleanup`,
		Args:          noArguments,
		SilenceErrors: true, SilenceUsage: true,
		Version: version.String(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := flags.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), config, &flags, takeOver)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	flags.register(root.PersistentFlags())
	root.Flags().BoolVar(&takeOver, "takeover", false, "take the DNS proxy's sockets over from the agent that runs, which then ends: no query is lost (systemd does it at every restart)")
	root.AddCommand(shimCommands()...)
	root.AddCommand(joinCommand(&flags), enforceCommand(&flags), &cobra.Command{
		Use:   "cleanup",
		Short: "Remove every kernel object that Weir made on this node, and nothing else",
		Long: `Remove every kernel object that Weir made on this node, and nothing else:
eBPF programs and maps, the nftables table, iptables chains and ipsets, addresses on lo. The host's resolver
is as it was before. The agent must be stopped. Files in data_dir stay.`,
		Example: "  systemctl stop weir-agent && weir-agent cleanup",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := flags.load()
			if err != nil {
				return err
			}
			removed, err := agent.Cleanup(config)
			for _, what := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed", what)
			}
			if len(removed) == 0 && err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing of Weir's is here")
			}
			return err
		},
	})
	return root
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, args[0])
	}
	return nil
}
