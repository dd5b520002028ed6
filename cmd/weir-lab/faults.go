package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (l *lab) kill() *cobra.Command {
	var agent, controller, power bool
	var task string
	cmd := &cobra.Command{
		Use:   "kill HOST [--agent | --controller | --task NAME | --power]",
		Short: "Kill a host's agent, controller or a detached command, or cut the host's power",
		Long: `Kill a host's agent alone with SIGKILL (--agent, the default), or its
controller (--controller), or a detached command with its children (--task NAME), or cut the host's power (--power):
every process and link of the host ends at once; what is on its disk, /etc/weir
and /var/lib/weir, stays.`,
		Example: `  weir-lab kill a1
  weir-lab kill a1 --task web
  weir-lab kill a1 --power && weir-lab start a1`,
		Args: arguments(1, 1, "takes a host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := 0
			for _, one := range []bool{agent, controller, power, task != ""} {
				if one {
					chosen++
				}
			}
			if chosen > 1 {
				return fmt.Errorf("%w: --agent, --controller, --task and --power exclude each other", errUsage)
			}
			up, err := l.open()
			if err != nil {
				return err
			}
			switch {
			case power:
				return up.PowerOff(cmd.Context(), args[0])
			case controller:
				return up.KillController(cmd.Context(), args[0])
			case task != "":
				return up.KillDetached(cmd.Context(), args[0], task)
			default:
				return up.KillAgent(cmd.Context(), args[0])
			}
		},
	}
	cmd.Flags().BoolVar(&agent, "agent", false, "the agent alone (the default)")
	cmd.Flags().BoolVar(&controller, "controller", false, "the controller alone")
	cmd.Flags().BoolVar(&power, "power", false, "every process and link of the host")
	cmd.Flags().StringVar(&task, "task", "", "the detached command of this name")
	return cmd
}

func (l *lab) start() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "start HOST",
		Short:   "Start what kill has ended: the host, or its agent alone",
		Example: "  weir-lab start a1",
		Args:    arguments(1, 1, "takes a host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			return up.Start(cmd.Context(), args[0], wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long the agent may take to be ready")
	return cmd
}

func (l *lab) cut() *cobra.Command {
	var oneWay bool
	cmd := &cobra.Command{
		Use:   "cut HOST [HOST]",
		Short: "Let nothing pass between two hosts, or between one and all others",
		Long: `Let nothing pass between two hosts, or between one and all others, on any
network. With --one-way only what the first host sends is lost.`,
		Example: `  weir-lab cut a1 a2
  weir-lab cut a1 a2 --one-way
  weir-lab cut a1`,
		Args: arguments(1, 2, "takes one host or two"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			return up.Cut(cmd.Context(), args[0], optional(args, 1), oneWay)
		},
	}
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "drop only what the first host sends")
	return cmd
}

func (l *lab) heal() *cobra.Command {
	return &cobra.Command{
		Use:   "heal [HOST [HOST]]",
		Short: "Undo cuts: all, those of one host, or those between two",
		Example: `  weir-lab heal
  weir-lab heal a1 a2`,
		Args: arguments(0, 2, "takes two hosts at most"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			return up.Heal(cmd.Context(), optional(args, 0), optional(args, 1))
		},
	}
}

// optional is the argument, or empty when it was not given.
func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}
