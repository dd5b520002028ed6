package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api/client"
)

// jobCommand is of the jobs at the controllers that open connects to.
func (c *cli) jobCommand(open func() (*client.Cluster, error)) *cobra.Command {
	a := &appCommands{cli: c, open: open}
	return c.noun("job", "Jobs: what runs to its end, at once or by a schedule", a.jobList(), a.jobShow(), a.jobApply(), a.jobRun(), a.jobStop(), a.jobRemove())
}

func (a *appCommands) jobList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The jobs, when they run and how that went", Example: "  weir job list", Args: arguments(0, 0, "none"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, _ []string) error {
			all, err := cluster.Jobs(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(all, func(p *page) {
				p.row("ID", "SCHEDULE", "ACTIVE", "SUCCEEDED", "FAILED", "LAST SUCCESS", "RUNS")
				for i := range all {
					one := &all[i]
					h := one.HistorySummary
					p.row(one.ID, orDash(schedulesOf(one)), len(one.ActiveRuns), h.SuccessCount, h.FailureCount, orDash(h.LastSuccessAt), orDash(one.Run.Cmd+strings.Join(one.Run.Args, " ")))
				}
			})
		}),
	}
}

func schedulesOf(one *client.JobState) string {
	var all []string
	for _, s := range one.Schedules {
		text := strings.TrimSpace(s.Cron + " " + s.Timezone)
		if !s.Enabled {
			text += " (off)"
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func (a *appCommands) jobShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "One job and its runs", Example: "  weir job show backup.nightly", Args: arguments(1, 1, "one: ID"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			one, err := cluster.Job(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(one, func(p *page) {
				p.row("job", one.ID)
				p.row("description", orDash(one.Description))
				p.row("schedule", orDash(schedulesOf(&one)))
				p.row("succeeded", fmt.Sprintf("%d, last %s", one.HistorySummary.SuccessCount, orDash(one.HistorySummary.LastSuccessAt)))
				p.row("failed", fmt.Sprintf("%d, last %s", one.HistorySummary.FailureCount, orDash(one.HistorySummary.LastFailureAt)))
				p.line("")
				p.row("RUN", "STATUS", "SINCE")
				for _, r := range one.ActiveRuns {
					p.row(r.ID, strings.ToLower(r.Status), r.CreatedAt)
				}
			})
		}),
	}
}

func (a *appCommands) jobApply() *cobra.Command {
	return &cobra.Command{
		Use: "apply FILE", Short: "Make a job, or change it to what the file says", Example: "  weir job apply examples/apps/backup.yaml", Args: arguments(1, 1, "one: FILE"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			id, text, err := definition(args[0])
			if err != nil {
				return err
			}
			return cluster.ApplyJob(cmd.Context(), strings.Trim(id, "/"), text)
		}),
	}
}

func (a *appCommands) jobRun() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run ID", Short: "Run a job now and wait for its end", Example: "  weir job run backup.nightly", Args: arguments(1, 1, "one: ID"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			run, err := cluster.RunJob(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, run.ID)
			return a.followRun(cmd, cluster, run)
		}),
	}
	cmd.Flags().DurationVar(&a.wait, "wait", 5*time.Minute, "how long to wait until it has ended; 0: not at all")
	return cmd
}

func (a *appCommands) followRun(cmd *cobra.Command, cluster *client.Cluster, run client.JobRun) error {
	begin, last := a.now(), ""
	for a.wait > 0 {
		now, err := cluster.JobRun(cmd.Context(), run.JobID, run.ID)
		if err != nil {
			return err
		}
		if now.Status != last {
			last = now.Status
			fmt.Fprintln(a.stderr, strings.ToLower(last))
		}
		switch {
		case now.Ended() && now.Status == "SUCCESS":
			return nil
		case now.Ended():
			return fmt.Errorf("run %s of %s failed: %s", run.ID, run.JobID, now.Reason)
		case a.now().Sub(begin) > a.wait:
			return fmt.Errorf("%w after %s: look with weir job show %s", errWaits, a.wait, run.JobID)
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(lookEvery):
		}
	}
	return nil
}

func (a *appCommands) jobStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop ID RUN", Short: "End a run of a job", Example: "  weir job stop backup.nightly 20260101030000abcde", Args: arguments(2, 2, "two: ID and RUN"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			return cluster.StopJobRun(cmd.Context(), args[0], args[1])
		}),
	}
}

func (a *appCommands) jobRemove() *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use: "remove ID", Short: "Delete a job that does not run", Example: "  weir job remove backup.nightly --stop", Args: arguments(1, 1, "one: ID"),
		RunE: a.do(func(cmd *cobra.Command, cluster *client.Cluster, args []string) error {
			return cluster.RemoveJob(cmd.Context(), args[0], stop)
		}),
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "end its runs")
	return cmd
}
