// Command weir-lab runs a data center in a box: hosts with agents and wires
// between them, on one Linux machine, without a trace in the machine's own
// network. It is thin: the engine is package testenv.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv"
	"github.com/weirproject/weir/version"
)

// errUsage marks a wrong use of the command line: exit 2.
var errUsage = errors.New("wrong usage")

// errStatus ends the program with a status and without a word.
type errStatus int

func (e errStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(status(command().ExecuteContext(ctx)))
}

// status reports the error and chooses the exit status.
func status(err error) int {
	var silent errStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &silent):
		return int(silent)
	}
	fmt.Fprintln(os.Stderr, "weir-lab:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// lab holds the flags that every command has.
type lab struct {
	root string
	name string
}

func command() *cobra.Command {
	var l lab
	root := &cobra.Command{
		Use:   "weir-lab",
		Short: "Run a data center in a box",
		Long: `Run a data center in a box: hosts with agents and wires between them, on one
Linux machine. Nothing is added to the machine's own network, and "weir-lab
down" removes everything.

Where one lab is up, commands mean that one; where more are, say --lab NAME.
The exit status is 0 done, 1 failed, 2 wrong usage; exec and shell pass on
that of the command.`,
		Example: `  weir-lab up -f lab.yaml
  weir-lab exec a1 -- curl -s http://web.shop.vip.weir.internal
  weir-lab down --all`,
		SilenceErrors: true, SilenceUsage: true,
		Version: version.String(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q; weir-lab --help lists them", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.PersistentFlags().StringVar(&l.name, "lab", "", "name of the lab (default: the one that is up)")
	root.PersistentFlags().StringVar(&l.root, "root", testenv.DefaultRoot, "folder that holds the labs")
	root.AddCommand(
		l.up(), l.down(), l.list(), l.show(),
		l.exec(), l.shell(), l.logs(),
		l.apply(), l.kill(), l.start(), l.cut(), l.heal(),
		serveCommand(), loadCommand(),
	)
	return root
}

// open finds the lab that the command is about.
func (l *lab) open() (*testenv.Lab, error) {
	if l.name != "" {
		return testenv.Open(l.root, l.name)
	}
	names, err := testenv.Names(l.root)
	if err != nil {
		return nil, err
	}
	switch len(names) {
	case 0:
		return nil, errors.New("no lab is up: run weir-lab up -f lab.yaml")
	case 1:
		return testenv.Open(l.root, names[0])
	default:
		return nil, fmt.Errorf("%w: more than one lab is up, say --lab with one of %v", errUsage, names)
	}
}

// arguments checks their number and says what they mean when it is wrong.
func arguments(least, most int, meaning string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return fmt.Errorf("%w: %s %s", errUsage, cmd.CommandPath(), meaning)
		}
		return nil
	}
}
