// Command weir-controller is one of a cluster's controllers: it begins a
// cluster or joins one, and then keeps what people declare and streams it to the
// nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/version"
)

// errUsage marks a wrong use of the command line: exit 2.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "weir-controller:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "weir-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	flags := &configFlags{}
	root := &cobra.Command{
		Use:   "weir-controller",
		Short: "Keep a cluster's wanted state and stream it to its nodes",
		Long: `Keep a cluster's wanted state and stream it to its nodes.

Every key of the configuration file is also a flag (--data-dir) and an
environment variable (WEIR_CONTROLLER_DATA_DIR). A flag beats the environment,
which beats the file.`,
		Example: `  weir-controller init --advertise https://10.80.0.2:8443
  weir-controller run
  weir-controller join https://10.80.0.2:8443 --token weir1.…
  weir-controller token --role agent --ttl 1h`,
		Version:       version.String(),
		Args:          arguments(0, ""),
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	flags.register(root.PersistentFlags())
	root.AddCommand(initCommand(flags), runCommand(flags), joinCommand(flags), tokenCommand(flags), backupCommand(flags), restoreCommand(flags))
	return root
}

// arguments requires a number of them; names tell what they are.
func arguments(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > n:
			return fmt.Errorf("%w: unexpected argument %q", errUsage, args[n])
		case len(args) < n:
			return fmt.Errorf("%w: %s needs %s", errUsage, cmd.CommandPath(), names)
		}
		return nil
	}
}
