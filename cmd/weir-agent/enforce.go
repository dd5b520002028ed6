package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/agent"
)

// enforceCommand is what a boot runs before the network is up.
func enforceCommand(flags *configFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "enforce",
		Short: "Enforce the zones that are kept on disk, and end: for the boot, before the network is up",
		Long: `Enforce the zones of the last snapshot that is kept in data_dir, and end. The unit
weir-zones.service runs it at every boot before the network is up, so that no
moment is without them. A policy that was not confirmed in time is not enforced.
Without a snapshot nothing changes. It refuses while the agent runs.`,
		Example: "  weir-agent enforce",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := flags.load()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: flags.logLevel}))
			what, err := agent.Enforce(cmd.Context(), config, log)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), what)
			return nil
		},
	}
}
