package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv"
)

func (l *lab) exec() *cobra.Command {
	var detach string
	cmd := &cobra.Command{
		Use:   "exec HOST [--] COMMAND [ARGUMENT...]",
		Short: "Run a command on a host, as any process of it",
		Long: `Run a command on a host: in its namespaces and its cgroup, so that it is
balanced, resolved and filtered like any process of that node. Standard input
and output, the terminal, signals and the exit status are the command's own;
127 means that there is no such command, 126 that it may not be run.

The files are the machine's, but for /etc/resolv.conf, /etc/hosts, /etc/weir,
/var/lib/weir, /run/weir and /sys. The folder of weir-lab is added to the end
of $PATH.

With --detach NAME the command runs in the background until it ends or its host
does; "weir-lab logs HOST NAME" shows its output.`,
		Example: `  weir-lab exec a1 -- curl -s http://web.shop.vip.weir.internal
  weir-lab exec --detach web a1 -- weir-lab serve http :8080`,
		Args: arguments(1, -1, "takes a host and a command"),
		RunE: func(cmd *cobra.Command, args []string) error {
			argv, err := afterHost(cmd, args[1:])
			if err != nil {
				return err
			}
			up, err := l.open()
			if err != nil {
				return err
			}
			if err := addOwnFolderToPath(); err != nil {
				return err
			}
			if detach != "" {
				return up.Detach(cmd.Context(), args[0], detach, argv...)
			}
			return replace(up, args[0], argv)
		},
	}
	// Parsing stops at the host: what follows the command belongs to it.
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&detach, "detach", "", "run in the background under this name")
	return cmd
}

// afterHost parses flags between the host and the command, and returns the
// command, with or without "--" before it.
func afterHost(cmd *cobra.Command, args []string) ([]string, error) {
	if err := cmd.Flags().Parse(args); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	argv := cmd.Flags().Args()
	if len(argv) == 0 || argv[0] == "" {
		return nil, fmt.Errorf("%w: %s takes a host and a command", errUsage, cmd.CommandPath())
	}
	return argv, nil
}

func (l *lab) shell() *cobra.Command {
	return &cobra.Command{
		Use:     "shell HOST",
		Short:   "Open a shell on a host",
		Example: "  weir-lab shell a1",
		Args:    arguments(1, 1, "takes a host"),
		RunE: func(_ *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			if err := addOwnFolderToPath(); err != nil {
				return err
			}
			shell := os.Getenv("SHELL")
			if shell == "" {
				shell = "/bin/sh"
			}
			return replace(up, args[0], []string{shell})
		},
	}
}

// replace makes this process the command. It returns when that fails.
func replace(up *testenv.Lab, host string, argv []string) error {
	err := up.Exec(host, argv, os.Environ())
	// The statuses of env(1) and of shells, which scripts know.
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist) && strings.Contains(argv[0], "/"):
		fmt.Fprintln(os.Stderr, "weir-lab:", err)
		return errStatus(127)
	case errors.Is(err, fs.ErrPermission):
		fmt.Fprintln(os.Stderr, "weir-lab:", err)
		return errStatus(126)
	}
	return err
}

// addOwnFolderToPath lets hosts find the commands that lie beside this one.
func addOwnFolderToPath() error {
	self, err := os.Executable()
	if err != nil {
		return nil // then they are named by their paths
	}
	folder, path := filepath.Dir(self), filepath.SplitList(os.Getenv("PATH"))
	if slices.Contains(path, folder) {
		return nil
	}
	return os.Setenv("PATH", strings.Join(append(path, folder), string(filepath.ListSeparator)))
}
