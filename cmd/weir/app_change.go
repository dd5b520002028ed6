package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/weirproject/weir/api/client"
)

// errWaits is of a change that was accepted and is not done in time.
var errWaits = errors.New("accepted, and not done yet")

// waiting are the flags of commands that begin a deployment.
type waiting struct {
	wait  time.Duration
	force bool
}

func (w *waiting) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().DurationVar(&w.wait, "wait", 5*time.Minute, "how long to wait until it is done; 0: not at all")
	cmd.Flags().BoolVar(&w.force, "force", false, "end what else is under way with the app")
	return cmd
}

// lookEvery is how often a deployment is looked at.
const lookEvery = 200 * time.Millisecond

// follow tells how a deployment goes, and ends with it.
func (a *appCommands) follow(ctx context.Context, cluster *client.Cluster, id, deployment string) error {
	if a.wait <= 0 {
		return nil
	}
	begin, last := a.now(), ""
	for {
		all, err := cluster.AppDeployments(ctx)
		if err != nil {
			return err
		}
		now, found := "", false
		for _, d := range all {
			if d.ID != deployment {
				continue
			}
			found = true
			now = fmt.Sprintf("step %d of %d", d.CurrentStep, d.TotalSteps)
			for _, p := range d.Progress {
				if !p.Done && p.Waits != "" {
					now += "; " + p.App + ": " + p.Waits
				}
			}
		}
		if !found {
			return a.ended(ctx, cluster, id)
		}
		if now != last {
			fmt.Fprintln(a.stderr, now)
			last = now
		}
		if a.now().Sub(begin) > a.wait {
			one, err := cluster.App(ctx, id)
			if err == nil {
				lines, _ := explain(ctx, cluster, &one) // what is known already is said
				for _, l := range lines {
					fmt.Fprintln(a.stderr, l)
				}
			}
			return fmt.Errorf("%w after %s: look with weir app explain %s", errWaits, a.wait, id)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// ended tells how the app stands after its deployment.
func (a *appCommands) ended(ctx context.Context, cluster *client.Cluster, id string) error {
	one, err := cluster.App(ctx, id)
	var problem *client.Problem
	if errors.As(err, &problem) && problem.Status == 404 {
		fmt.Fprintf(a.stderr, "%s is gone\n", id)
		return nil
	} else if err != nil {
		return err
	}
	for _, w := range one.Warnings {
		fmt.Fprintln(a.stderr, "warning:", w)
	}
	if len(one.Deployments) > 0 {
		return fmt.Errorf("the deployment has ended, and another one, %s, takes it back or its place: look with weir app show %s", one.Deployments[0].ID, id)
	}
	fmt.Fprintf(a.stderr, "%s: %d of %s run\n", id, one.TasksRunning, instancesOf(one.Instances))
	return nil
}

// explain is what an app waits for, in sentences.
func explain(ctx context.Context, cluster *client.Cluster, one *client.AppState) ([]string, error) {
	lines := []string{fmt.Sprintf("%s: %d of %s instances run, %d are starting", one.ID, one.TasksRunning, instancesOf(one.Instances), one.TasksStaged)}
	queues, err := cluster.AppQueues(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range queues {
		if q.App.ID != one.ID {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s cannot be launched since %s", plural(q.Count, "instance"), q.Since))
		if q.NextTry != "" {
			lines = append(lines, "after failures it waits until "+q.NextTry)
		}
		if q.Summary.Nodes == 0 && q.NextTry == "" {
			lines = append(lines, "  no node has joined that could run any: look with weir node list")
		}
		for _, r := range q.Summary.Reasons {
			lines = append(lines, fmt.Sprintf("  %d of %s declined: %s", r.Declined, plural(q.Summary.Nodes, "node"), r.Text))
		}
	}
	if one.TasksUnhealthy > 0 {
		lines = append(lines, fmt.Sprintf("%d fail their health check and get no traffic", one.TasksUnhealthy))
	}
	if f := one.LastTaskFailure; f != nil {
		lines = append(lines, fmt.Sprintf("the last failure: %s at %s: %s %s", f.TaskID, f.Timestamp, f.State, f.Message))
	}
	for _, w := range one.Warnings {
		lines = append(lines, "warning: "+w)
	}
	return lines, nil
}

// definition reads a file of JSON or YAML, "-" for the input.
func definition(path string) (id string, text json.RawMessage, err error) {
	var content []byte
	if path == "-" {
		content, err = io.ReadAll(os.Stdin)
	} else {
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the app: %w", err)
	}
	var value map[string]any
	if err := yaml.Unmarshal(content, &value); err != nil {
		return "", nil, fmt.Errorf("read the app of %s: %w", path, err)
	}
	delete(value, "kind") // as documents have it
	id, _ = value["id"].(string)
	if id == "" {
		return "", nil, fmt.Errorf("read the app of %s: id is missing", path)
	}
	text, err = json.Marshal(value)
	return appID(id), text, err
}

func (a *appCommands) run() *cobra.Command {
	return a.flags(&cobra.Command{
		Use: "run FILE", Short: "Make a new app of a definition, JSON or YAML, and wait until it runs",
		Example: "  weir app run examples/apps/web.yaml", Args: arguments(1, 1, "one: FILE"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			id, text, err := definition(args[0])
			if err != nil {
				return err
			}
			made, err := cluster.RunApp(cmd.Context(), text)
			if err != nil {
				return err
			}
			deployment := ""
			if len(made.Deployments) > 0 {
				deployment = made.Deployments[0].ID
			}
			return a.follow(cmd.Context(), cluster, id, deployment)
		}),
	})
}

func (a *appCommands) apply() *cobra.Command {
	return a.flags(&cobra.Command{
		Use: "apply FILE", Short: "Make an app, or change it to what the file says, and wait until it is so",
		Example: "  weir app apply examples/apps/web.yaml", Args: arguments(1, 1, "one: FILE"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			id, text, err := definition(args[0])
			if err != nil {
				return err
			}
			change, err := cluster.ApplyApp(cmd.Context(), id, text, a.force)
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), cluster, id, change.DeploymentID)
		}),
	})
}

// changing makes a command that changes one app.
func (a *appCommands) changing(use, short, example string, most int, change func(ctx context.Context, cluster *client.Cluster, id string, args []string) (client.AppChange, error)) *cobra.Command {
	return a.flags(&cobra.Command{
		Use: use, Short: short, Example: example, Args: arguments(1, most, use),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			id := appID(args[0])
			begun, err := change(cmd.Context(), cluster, id, args[1:])
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), cluster, id, begun.DeploymentID)
		}),
	})
}

func (a *appCommands) scale() *cobra.Command {
	cmd := a.changing("scale ID N", "Run N instances of an app; * is one on every node", "  weir app scale /shop/web 5", 2,
		func(ctx context.Context, cluster *client.Cluster, id string, args []string) (client.AppChange, error) {
			var n any = "*"
			if args[0] != "*" {
				count, err := strconv.Atoi(args[0])
				if err != nil || count < 0 {
					return client.AppChange{}, fmt.Errorf(`%w: %q is neither a number of instances nor "*"`, errUsage, args[0])
				}
				n = count
			}
			return cluster.UpdateApp(ctx, id, map[string]any{"instances": n}, a.force)
		})
	cmd.Args = arguments(2, 2, "two: ID and N")
	return cmd
}

func (a *appCommands) restart() *cobra.Command {
	return a.changing("restart ID", "Replace all tasks of an app, as in an upgrade", "  weir app restart /shop/web", 1,
		func(ctx context.Context, cluster *client.Cluster, id string, _ []string) (client.AppChange, error) {
			return cluster.RestartApp(ctx, id, a.force)
		})
}

func (a *appCommands) rollback() *cobra.Command {
	return a.changing("rollback ID [VERSION]", "Go back to a version of an app, or to the one before", "  weir app rollback /shop/web", 2,
		func(ctx context.Context, cluster *client.Cluster, id string, args []string) (client.AppChange, error) {
			version := ""
			if len(args) > 0 {
				version = args[0]
			} else {
				all, err := cluster.AppVersions(ctx, id)
				if err != nil {
					return client.AppChange{}, err
				}
				if len(all) < 2 {
					return client.AppChange{}, fmt.Errorf("%s has no version before this one", id)
				}
				version = all[1]
			}
			return cluster.UpdateApp(ctx, id, map[string]any{"version": version}, a.force)
		})
}

func (a *appCommands) stop() *cobra.Command {
	return a.changing("stop ID", "End all tasks of an app and keep its definition, names and virtual IPs", "  weir app stop /shop/web", 1,
		func(ctx context.Context, cluster *client.Cluster, id string, _ []string) (client.AppChange, error) {
			return cluster.UpdateApp(ctx, id, map[string]any{"instances": 0}, a.force)
		})
}

func (a *appCommands) remove() *cobra.Command {
	return a.changing("remove ID", "End all tasks of an app and forget it", "  weir app remove /shop/web", 1,
		func(ctx context.Context, cluster *client.Cluster, id string, _ []string) (client.AppChange, error) {
			return cluster.RemoveApp(ctx, id, a.force)
		})
}
