package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// perLine is how long a line of a log is taken to be when its last ones are
// asked for.
const perLine = 200

func (c *cli) taskCommand() *cobra.Command {
	return c.noun("task", "What runs on this node: its tasks, their logs, a command inside them",
		c.taskListCommand(), c.taskShowCommand(), c.taskLogsCommand(), c.taskExecCommand(), c.taskKillCommand())
}

func (c *cli) taskListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tasks of this node", Example: "  weir task list",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			tasks, err := agent.Tasks(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(tasks, func(p *page) {
				p.row("ID", "STATE", "HEALTH", "SINCE", "MEMORY", "ADDRESSES", "REASON")
				for _, t := range tasks {
					p.row(t.ID, t.State, healthOf(t), c.ago(t.Since), fmt.Sprintf("%d MiB", t.Memory>>20), orDash(list(t.Addresses)), t.Reason)
				}
			})
		},
	}
}

func healthOf(t api.TaskStatus) string {
	switch {
	case t.Healthy == nil && len(t.Checks) > 0:
		return "unknown"
	case t.Healthy == nil:
		return "-"
	case *t.Healthy:
		return "healthy"
	default:
		return "failing"
	}
}

func (c *cli) taskShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one task with its checks", Example: "  weir task show shop_web.instance-1",
		Args: arguments(1, 1, "one: ID"), ValidArgsFunction: c.completeTasks,
		RunE: func(cmd *cobra.Command, args []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			t, err := agent.Task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(t, func(p *page) { c.taskPage(p, t) })
		},
	}
}

func (c *cli) taskPage(p *page, t api.LocalTask) {
	s := t.Status
	p.row("id", s.ID)
	p.row("app", s.App)
	p.row("runtime", t.Spec.Runtime)
	if t.Spec.Container != nil {
		p.row("image", t.Spec.Container.Image)
	}
	p.row("command", orDash(strings.Join(append([]string{t.Spec.Command}, t.Spec.Args...), " ")))
	p.row("state", fmt.Sprintf("%s, %s", s.State, c.ago(s.Since)))
	if s.Reason != "" {
		p.row("reason", s.Reason)
	}
	p.row("health", healthOf(s))
	p.row("process", s.PID)
	p.row("addresses", orDash(list(s.Addresses)))
	p.row("cpus", fmt.Sprintf("%g, %.1f s used", t.Spec.CPUs, s.CPUSeconds))
	p.row("memory", fmt.Sprintf("%d MiB of %d MiB", s.Memory>>20, t.Spec.Memory>>20))
	p.row("sandbox", t.Sandbox)
	for i, k := range s.Checks {
		if i < len(t.Spec.Checks) {
			p.row(fmt.Sprintf("check %d", i+1), fmt.Sprintf("%s, %s, last %s %s", t.Spec.Checks[i].Kind, plural(k.Failures, "failure"), c.ago(k.Last), k.Output))
		}
	}
}

func (c *cli) taskLogsCommand() *cobra.Command {
	var follow, stderr bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs ID", Short: "Print what a task wrote to its standard output",
		Example: "  weir task logs shop_web.instance-1 -f\n  weir task logs shop_web.instance-1 --stderr --lines 100",
		Args:    arguments(1, 1, "one: ID"), ValidArgsFunction: c.completeTasks,
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task ends")
	cmd.Flags().BoolVar(&stderr, "stderr", false, "its standard error instead")
	cmd.Flags().IntVar(&lines, "lines", 0, "begin about so many lines before the end (default: at the beginning)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		agent, err := c.client()
		if err != nil {
			return err
		}
		o := client.LogOptions{Stream: "stdout", Follow: follow, Offset: -int64(lines) * perLine}
		if stderr {
			o.Stream = "stderr"
		}
		log, err := agent.TaskLogs(cmd.Context(), args[0], o)
		if err != nil {
			return err
		}
		defer log.Close()
		if _, err := io.Copy(c.stdout, log); err != nil && cmd.Context().Err() == nil {
			return fmt.Errorf("read the log: %w", err)
		}
		return nil
	}
	return cmd
}

func (c *cli) taskKillCommand() *cobra.Command {
	grace := time.Duration(-1)
	cmd := &cobra.Command{
		Use: "kill ID", Short: "End a task; its app gets another",
		Long: `End a task: SIGTERM, and SIGKILL after its grace period. Where the task belongs
to an app, the controllers start another in its place.`,
		Example: "  weir task kill shop_web.instance-1\n  weir task kill shop_web.instance-1 --grace 0s",
		Args:    arguments(1, 1, "one: ID"), ValidArgsFunction: c.completeTasks,
	}
	cmd.Flags().DurationVar(&grace, "grace", -1, "how long it may take to end, such as 10s (default: the task's own)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		agent, err := c.client()
		if err != nil {
			return err
		}
		t, err := agent.KillTask(cmd.Context(), args[0], grace)
		if err != nil {
			return err
		}
		return c.print(t, func(p *page) { p.line(fmt.Sprintf("%s is told to end", t.Status.ID)) })
	}
	return cmd
}

// completeTasks offers the ids of the node's tasks.
func (c *cli) completeTasks(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	agent, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tasks, _ := agent.Tasks(cmd.Context()) // without an agent there is nothing to offer
	var all []cobra.Completion
	for _, t := range tasks {
		all = append(all, t.ID)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
