// Command weir asks the agent of this node: is the node right, what do its
// virtual IPs lead to, who answers a name, which flows may pass. Of a cluster it
// asks the controllers: what is declared, which nodes there are, who did what.
//
// Few commands change anything, and their help says so. Results go to stdout, talk to stderr. It exits with 0
// when the question was answered, 1 when it was not or the node is degraded,
// 2 when it was used wrongly, and 3 when what it asked for was accepted and is not
// done in time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, proc: "/proc", now: time.Now}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitWaits  = 3
)

// errUsage marks a wrong use of the command line.
var errUsage = errors.New("wrong usage")

// usage makes an error of a wrong use.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%w: %s (see %s --help)", errUsage, fmt.Sprintf(format, args...), cmd.CommandPath())
}

// cli is one run of the command.
type cli struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	proc           string // where processes are listed; empty: nowhere
	now            func() time.Time

	socket  string // flags of every command
	output  string
	context string
}

// run executes the command line and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	err := root.ExecuteContext(ctx)
	var status exitStatus
	switch {
	case errors.As(err, &status): // of what weir task exec ran
		return int(status)
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage):
		fmt.Fprintln(c.stderr, "weir:", err)
		return exitUsage
	case errors.Is(err, errWaits):
		fmt.Fprintln(c.stderr, "weir:", err)
		return exitWaits
	default:
		fmt.Fprintln(c.stderr, "weir:", err)
		return exitFailed
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "Ask this node's agent about virtual IPs, names and zones, and the controllers about the cluster",
		Long: `Ask this node's agent about virtual IPs, names and zones: only vip drain, dns
flush, zone apply, confirm and rollback change anything. Of a cluster, to which
weir login leads, ask the controllers: get, diff, node list and show, audit; and
change it: apply, edit, delete, node drain and remove, token, controller.

Exit status: 0 answered, 1 not answered or the node is degraded, 2 wrong usage,
3 accepted and not done in time.`,
		Example: `  weir status
  weir vip list
  weir vip show web.shop -o json
  weir dns query web.shop.vip.weir.internal
  weir zone explain 203.0.113.9 private tcp/22`,
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          c.oneOfTheCommands,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return c.checkOutput(cmd)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%v", err) })
	flags := root.PersistentFlags()
	flags.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	flags.StringVar(&c.socket, "socket", "", "socket of the agent, or its URL (environment: WEIR_SOCKET; default "+client.DefaultSocket+")")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(c.statusCommand(), c.vipCommand(), c.dnsCommand(), c.zoneCommand(), c.taskCommand(), c.versionCommand(), c.completionCommand())
	flags.StringVar(&c.context, "context", "", "cluster to ask, as weir context list names it (environment: WEIR_CONTEXT; default the current one)")
	root.AddCommand(c.flowsCommand(), c.dropsCommand())
	root.AddCommand(c.clusterCommands()...)
	return root
}

// clusterCommands ask the controllers.
func (c *cli) clusterCommands() []*cobra.Command {
	return []*cobra.Command{
		c.loginCommand(), c.contextCommand(), c.applyCommand(), c.diffCommand(), c.getCommand(), c.deleteCommand(), c.editCommand(),
		c.nodeCommand(), c.appCommand(c.cluster), c.jobCommand(c.cluster), c.tokenCommand(c.cluster), c.controllerCommand(c.cluster), c.auditCommand(),
	}
}

// noun makes the command that groups a noun's verbs.
func (c *cli) noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: c.oneOfTheCommands}
	var examples, names []string
	for _, v := range verbs {
		examples, names = append(examples, v.Example), append(names, v.Name())
	}
	cmd.Example = strings.Join(examples, "\n")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return usage(cmd, "%s needs a verb: %s", name, strings.Join(names, ", "))
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// oneOfTheCommands refuses what is none of the commands below cmd.
func (c *cli) oneOfTheCommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage(cmd, "there is no command %q%s", cmd.CommandPath()+" "+args[0], hint)
}

// arguments requires from least to most of them; names tell what they are.
func arguments(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) >= least && len(args) <= most:
			return nil
		case most == 0:
			return usage(cmd, "unexpected argument %q", args[0])
		default:
			return usage(cmd, "got %d arguments, want %s", len(args), names)
		}
	}
}

// client of the agent that the flags or the environment name.
func (c *cli) client() (*client.Client, error) {
	address := c.socket
	if address == "" {
		address = c.getenv("WEIR_SOCKET")
	}
	return client.New(address)
}
