package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

// change are the flags of what changes the policy.
type change struct {
	confirm time.Duration
	force   bool
}

func (f *change) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.confirm, "confirm", 0, "take it back after this time unless weir zone confirm comes before; 0: never")
	cmd.Flags().BoolVar(&f.force, "force", false, "apply it though it cuts controllers from agents, or your own SSH session")
}

func (c *cli) zoneApplyCommand() *cobra.Command {
	var f change
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Enforce a policy, and take it back unless it is confirmed",
		Long: `Enforce a policy on this node. With --confirm it is taken back by itself unless
weir zone confirm comes in time: also when the node hears of no controller or of
no peer any more, and when the agent is killed meanwhile. The state's files keep
the old policy until then.

A policy with faults is refused. So is one that would cut controllers from agents,
or your own SSH session, unless --force. Established connections survive.`,
		Example: "  weir zone apply policy.yaml --confirm 60s && weir zone confirm",
		Args:    arguments(1, 1, "one: FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			done, err := agent.ZoneApply(cmd.Context(), api.ZoneApply{
				ZonePolicyFile: api.ZonePolicyFile{File: args[0], Text: string(text)},
				Confirm:        api.Duration(f.confirm), Force: f.force, By: c.who(), SSH: c.sshConnection(),
			})
			if err != nil {
				return err
			}
			return c.print(done, func(p *page) { appliedPage(p, done) })
		},
	}
	f.register(cmd)
	return cmd
}

func appliedPage(p *page, a api.ZoneApplied) {
	if len(a.Warnings) > 0 {
		findingsPage(p, a.Warnings)
	}
	diffPage(p, a.Diff)
	if a.State == api.ChangePending {
		p.line(fmt.Sprintf("change %d is enforced until %s, and then taken back: keep it with weir zone confirm", a.ID, clock(a.Deadline)))
		return
	}
	p.line(fmt.Sprintf("change %d is in force, in %s", a.ID, a.File))
}

func (c *cli) zoneConfirmCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Keep the policy that was applied with --confirm",
		Long:    `Keep the policy that was applied with --confirm: it is written into the state's files.`,
		Example: "  weir zone confirm",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			done, err := agent.ZoneConfirm(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(done, func(p *page) { p.line(fmt.Sprintf("change %d stays in force", done.ID)) })
		},
	}
}

func (c *cli) zoneHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "Show the last policies, who applied them and what they changed",
		Long:    `Show the last 50 policies, the newest first: who applied them, what they opened and closed, and what became of them.`,
		Example: "  weir zone history",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			all, err := agent.ZoneHistory(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("ID", "TIME", "BY", "STATE", "CHANGE")
				for _, h := range all {
					state := string(h.State)
					if h.Reason != "" {
						state += ": " + h.Reason
					}
					p.row(h.ID, h.Time.Local().Format(time.DateTime), h.By, state, h.Summary)
				}
			})
		},
	}
}

func (c *cli) zoneRollbackCommand() *cobra.Command {
	var f change
	cmd := &cobra.Command{
		Use:   "rollback [ID]",
		Short: "Enforce a policy of the history again, or take the pending one back",
		Long: `Enforce a policy of the history again, as weir zone apply does. Without an ID the
change that waits to be confirmed is taken back.`,
		Example: "  weir zone rollback\n  weir zone rollback 12 --confirm 60s",
		Args:    arguments(0, 1, "at most one: ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := api.ZoneRollback{Confirm: api.Duration(f.confirm), Force: f.force, By: c.who(), SSH: c.sshConnection()}
			if len(args) == 1 {
				id, err := strconv.Atoi(args[0])
				if err != nil || id < 1 {
					return usage(cmd, "ID %q is not a number from 1; see weir zone history", args[0])
				}
				r.ID = id
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			done, err := agent.ZoneRollback(cmd.Context(), r)
			if err != nil {
				return err
			}
			return c.print(done, func(p *page) {
				if done.State == api.ChangeRolledBack {
					p.line(fmt.Sprintf("change %d is taken back", done.ID))
					return
				}
				appliedPage(p, done)
			})
		},
	}
	f.register(cmd)
	return cmd
}

// who runs the command: behind sudo too, and from where.
func (c *cli) who() string {
	name := c.getenv("SUDO_USER")
	if name == "" {
		name = c.getenv("USER")
	}
	if name == "" {
		name = "uid " + strconv.Itoa(os.Getuid())
	}
	if from, _, ok := strings.Cut(c.sshConnection(), " "); ok {
		name += " from " + from
	}
	return name
}

// sshConnection is the session's SSH_CONNECTION. Since sudo takes it out of the
// environment, it is looked for in those of the processes above as well.
func (c *cli) sshConnection() string {
	if s := c.getenv("SSH_CONNECTION"); s != "" || c.proc == "" {
		return s
	}
	for pid, depth := os.Getppid(), 0; pid > 1 && depth < 32; depth++ {
		text, err := os.ReadFile(fmt.Sprintf("%s/%d/environ", c.proc, pid))
		if err != nil {
			return ""
		}
		for _, line := range bytes.Split(text, []byte{0}) {
			if value, ok := bytes.CutPrefix(line, []byte("SSH_CONNECTION=")); ok {
				return string(value)
			}
		}
		stat, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", c.proc, pid))
		if err != nil {
			return ""
		}
		// The command's name, in brackets, may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 {
			return ""
		}
		pid, _ = strconv.Atoi(fields[1])
	}
	return ""
}
