package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/weirproject/weir/api/client"
)

// exitStatus is the exit status of a command that was run elsewhere; it becomes
// our own.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("the command ended with %d", int(e)) }

func (c *cli) taskExecCommand() *cobra.Command {
	var tty, input bool
	cmd := &cobra.Command{
		Use: "exec ID -- COMMAND [ARGUMENT...]", Short: "Run a command inside a task",
		Long: `Run a command inside a task: in its namespaces, with its user, environment and
limits. The exit status is the command's; 128 and more for a signal.`,
		Example: "  weir task exec shop_web.instance-1 -- ps aux\n  weir task exec -it shop_web.instance-1 -- sh",
		Args:    arguments(2, 1<<16, "two or more: ID COMMAND"), ValidArgsFunction: c.completeTasks,
	}
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give it a terminal")
	cmd.Flags().BoolVarP(&input, "interactive", "i", false, "give it this command's standard input")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		agent, err := c.client()
		if err != nil {
			return err
		}
		e := client.Exec{Args: args[1:], TTY: tty, Stdout: c.stdout, Stderr: c.stderr}
		if input {
			e.Stdin = os.Stdin
		}
		if tty {
			restore, sizes := terminal(e.Stdin)
			defer restore()
			e.Sizes = sizes
		}
		code, err := agent.ExecTask(cmd.Context(), args[0], e)
		if err != nil {
			return err
		}
		if code != 0 {
			return exitStatus(code)
		}
		return nil
	}
	return cmd
}

// terminal has keys passed on as they are struck, and tells of the terminal's
// size, now and when it changes.
func terminal(in io.Reader) (restore func(), sizes <-chan client.WindowSize) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}, nil
	}
	fd := int(f.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return func() {}, nil
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	out := make(chan client.WindowSize, 1)
	go func() {
		defer close(out)
		for ok := true; ok; _, ok = <-changed {
			if columns, rows, err := term.GetSize(fd); err == nil {
				out <- client.WindowSize{Columns: uint16(columns), Rows: uint16(rows)}
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(changed)
		_ = term.Restore(fd, before)
	}, out
}
