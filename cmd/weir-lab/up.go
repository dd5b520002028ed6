package main

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv"
)

func (l *lab) up() *cobra.Command {
	var file, bin string
	var wait time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:   "up -f FILE",
		Short: "Bring a lab up and wait until its agents are ready",
		Long: `Bring a lab up and wait until its agents are ready. When that fails, the lab is
taken down again. --lab gives the lab another name than the file does.`,
		Example: "  weir-lab up -f lab.yaml --wait 10s",
		Args:    arguments(0, 0, "takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return fmt.Errorf("%w: say which lab with -f FILE", errUsage)
			}
			spec, err := testenv.ReadFile(file)
			if err != nil {
				return err
			}
			o := testenv.Options{File: file, Name: l.name, Wait: wait, Root: l.root}
			if slices.ContainsFunc(spec.Hosts, testenv.Host.RunsAgent) {
				if o.AgentBinary, err = testenv.FindAgent(bin); err != nil {
					return err
				}
			}
			if spec.Joined() {
				if o.ControllerBinary, err = testenv.FindController(bin); err != nil {
					return err
				}
			}
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			}
			began := time.Now()
			up, err := testenv.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "lab %q is up: %d hosts in %s\n", up.Spec.Name, len(up.Spec.Hosts), time.Since(began).Round(time.Millisecond))
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "lab file")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long each agent may take to be ready")
	cmd.Flags().StringVar(&bin, "bin", "", "folder with weir-agent and weir-controller (default: that of weir-lab, then $PATH)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell each step on stderr")
	return cmd
}

func (l *lab) down() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down [NAME | --all]",
		Short: "Take a lab down, or what a crash left of it, and remove all that belongs to it",
		Example: `  weir-lab down demo
  weir-lab down --all`,
		Args: arguments(0, 1, "takes one name at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all {
				if len(args) > 0 || l.name != "" {
					return fmt.Errorf("%w: --all and a name exclude each other", errUsage)
				}
				ended, err := testenv.DownAll(cmd.Context(), l.root)
				for _, name := range ended {
					fmt.Fprintf(cmd.OutOrStdout(), "lab %q is down\n", name)
				}
				return err
			}
			name, err := l.downName(args)
			if err != nil {
				return err
			}
			if err := testenv.Down(cmd.Context(), l.root, name); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "lab %q is down\n", name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "take every lab down")
	return cmd
}

// downName does not open the lab, which a crash may have left incomplete.
func (l *lab) downName(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	if l.name != "" {
		return l.name, nil
	}
	names, err := testenv.Names(l.root)
	if err != nil {
		return "", err
	}
	if len(names) != 1 {
		return "", fmt.Errorf("%w: say which lab, or --all; up are %v", errUsage, names)
	}
	return names[0], nil
}
