package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// appCommand is of the apps at the controllers that open connects to.
func (c *cli) appCommand(open func() (*client.Cluster, error)) *cobra.Command {
	a := &appCommands{cli: c, open: open}
	return c.noun("app", "Apps: what shall run, how many, and how that goes",
		a.list(), a.show(), a.run(), a.apply(), a.scale(), a.restart(), a.rollback(), a.stop(), a.remove(), a.explain(), a.tasks())
}

// appCommands share their flags.
type appCommands struct {
	*cli
	open func() (*client.Cluster, error)
	waiting
}

// do gives a command the cluster.
func (a *appCommands) do(with func(cmd *cobra.Command, cluster *client.Cluster, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cluster, err := a.open()
		if err != nil {
			return err
		}
		defer cluster.Close()
		return with(cmd, cluster, args)
	}
}

// appID is an id with its first slash.
func appID(text string) string { return "/" + strings.Trim(text, "/") }

func (a *appCommands) list() *cobra.Command {
	var selector string
	cmd := &cobra.Command{
		Use: "list", Short: "The apps, and how many tasks of each run", Example: "  weir app list\n  weir app list --label tier==front", Args: arguments(0, 0, "none"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, _ []string) error {
			all, err := cluster.Apps(cmd.Context(), selector)
			if err != nil {
				return err
			}
			return a.print(all, func(p *page) {
				p.row("ID", "RUNNING", "HEALTHY", "CPUS", "MEM", "STATE", "RUNS")
				for i := range all {
					one := &all[i]
					p.row(one.ID, fmt.Sprintf("%d/%s", one.TasksRunning, instancesOf(one.Instances)), healthyOf(one), one.CPUs, one.Mem, appStateOf(one), orDash(runsOf(&one.App)))
				}
			})
		}),
	}
	cmd.Flags().StringVar(&selector, "label", "", "only apps whose labels are so: a==b, a!=b, a in (x,y), a notin (x,y), a")
	return cmd
}

func instancesOf(n api.Instances) string {
	if n == api.EveryNode {
		return "*"
	}
	return fmt.Sprint(int(n))
}

func healthyOf(one *client.AppState) string {
	if len(one.HealthChecks) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", one.TasksHealthy, one.TasksRunning)
}

func appStateOf(one *client.AppState) string {
	switch {
	case len(one.Deployments) > 0:
		return "deploying"
	case one.Instances == 0:
		return "stopped"
	case one.TasksUnhealthy > 0:
		return "unhealthy"
	case one.Instances > 0 && one.TasksRunning < int(one.Instances):
		return "waiting"
	}
	return "running"
}

// runsOf is the app's image or command, in short.
func runsOf(one *api.App) string {
	text := one.Cmd
	if text == "" {
		text = strings.Join(one.Args, " ")
	}
	if one.Container != nil && one.Container.Docker != nil {
		text = one.Container.Docker.Image
	}
	if short := []rune(text); len(short) > 40 {
		return string(short[:37]) + "..."
	}
	return text
}

func (a *appCommands) show() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "One app: its tasks, what is under way with it, how the last one failed", Example: "  weir app show /shop/web", Args: arguments(1, 1, "one: ID"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			one, err := cluster.App(cmd.Context(), appID(args[0]))
			if err != nil {
				return err
			}
			return a.print(one, func(p *page) { a.page(p, &one) })
		}),
	}
}

func (a *appCommands) page(p *page, one *client.AppState) {
	p.row("app", one.ID)
	p.row("state", appStateOf(one))
	p.row("instances", fmt.Sprintf("%d of %s run", one.TasksRunning, instancesOf(one.Instances)))
	p.row("version", one.Version)
	vips, _ := one.VIPs() // the wrong ones are among the warnings
	for _, v := range vips {
		p.row("vip", fmt.Sprintf("%s (%s of port %d)", v.VIP, v.Label, v.Port))
	}
	for _, w := range one.Warnings {
		p.row("warning", w)
	}
	for _, d := range one.Deployments {
		p.row("deployment", d.ID)
	}
	if f := one.LastTaskFailure; f != nil {
		p.row("last failure", fmt.Sprintf("%s on %s at %s: %s", f.TaskID, f.Host, f.Timestamp, orDash(f.Message)))
	}
	p.line("")
	taskRows(p, one.Tasks)
}

func taskRows(p *page, tasks []client.AppTask) {
	p.row("TASK", "STATE", "HEALTH", "NODE", "ADDRESS", "PORTS")
	for _, t := range tasks {
		health := "-"
		for _, r := range t.HealthCheckResults {
			if health == "-" {
				health = "healthy"
			}
			if !r.Alive {
				health = strings.TrimSuffix("fails: "+r.LastFailureCause, ": ")
			}
		}
		address := t.Host
		if len(t.IPAddresses) > 0 {
			address = t.IPAddresses[0].IPAddress
		}
		p.row(t.ID, strings.ToLower(strings.TrimPrefix(t.State, "TASK_")), health, t.Node, orDash(address), orDash(list(t.Ports)))
	}
}

func (a *appCommands) tasks() *cobra.Command {
	return &cobra.Command{
		Use: "tasks", Short: "The tasks of all apps, on all nodes", Example: "  weir app tasks", Args: arguments(0, 0, "none"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, _ []string) error {
			all, err := cluster.AppTasks(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(all, func(p *page) { taskRows(p, all) })
		}),
	}
}

func (a *appCommands) explain() *cobra.Command {
	return &cobra.Command{
		Use: "explain ID", Short: "Why an app is not as it shall be: what it waits for, which nodes declined and why", Example: "  weir app explain /shop/web", Args: arguments(1, 1, "one: ID"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			id := appID(args[0])
			one, err := cluster.App(cmd.Context(), id)
			if err != nil {
				return err
			}
			lines, err := explain(cmd.Context(), cluster, &one)
			if err != nil {
				return err
			}
			return a.print(lines, func(p *page) {
				for _, l := range lines {
					p.line(l)
				}
			})
		}),
	}
}
