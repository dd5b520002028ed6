package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv"
)

func (l *lab) logs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs HOST [NAME]",
		Short: "Show what a host's agent, or a detached command, has written",
		Example: `  weir-lab logs a1 -f
  weir-lab logs a1 web`,
		Args: arguments(1, 2, "takes a host and the name of a detached command"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			name, err := logName(up, args)
			if err != nil {
				return err
			}
			f, err := os.Open(up.LogFile(args[0], name))
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), f); err != nil || !follow {
				return err
			}
			return tail(cmd.Context(), cmd.OutOrStdout(), f)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until ^C or the lab's end")
	return cmd
}

// logName is the log that was asked for, or the host's first.
func logName(up *testenv.Lab, args []string) (string, error) {
	host, names := args[0], up.Logs(args[0])
	if !slices.ContainsFunc(up.Spec.Hosts, func(h testenv.Host) bool { return h.Name == host }) {
		return "", fmt.Errorf("lab %q has no host %q", up.Spec.Name, host)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("host %s has no logs: it runs no agent and no detached command", host)
	}
	if len(args) == 1 {
		return names[0], nil
	}
	if !slices.Contains(names, args[1]) {
		return "", fmt.Errorf("host %s has no log %q; its logs are %v", host, args[1], names)
	}
	return args[1], nil
}

// tail copies what is added to the file until ctx ends or the file is removed.
func tail(ctx context.Context, w io.Writer, f *os.File) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		if _, err := os.Stat(f.Name()); err != nil {
			return nil
		}
	}
}
