package jobs_test

import (
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/scheduler"
)

func run(policy jobs.RestartPolicy) jobs.Run {
	a := api.NewApp()
	a.ID, a.Cmd = "/report", "true"
	a.Complete()
	r := jobs.NewRun(jobs.Job{ID: "shop.report", App: a, Restart: jobs.Restart{Policy: policy, ActiveDeadlineSeconds: 600}}, "", time.Time{}, at("2026-03-01T00:00:00Z"))
	r.ID = "20260301abc"
	return r
}

func task(id string, state api.TaskState, since time.Time) scheduler.Instance {
	return scheduler.Instance{ID: id, App: "/shop/report/20260301abc", State: state, Since: since, Spec: &api.TaskSpec{}}
}

func TestRunSucceedsWithItsTask(t *testing.T) {
	r, now := run(jobs.Never), at("2026-03-01T00:00:01Z")
	r, targets, _ := jobs.Advance(r, nil, now)
	if r.Status != jobs.Starting || len(targets) != 1 || targets[0].Count != 1 || targets[0].App.ID != "/shop/report/20260301abc" {
		t.Fatalf("run is %+v with %+v", r, targets)
	}
	r, targets, _ = jobs.Advance(r, []scheduler.Instance{task("t1", api.TaskRunning, now)}, now)
	if r.Status != jobs.Active || len(targets) != 1 {
		t.Fatalf("run is %+v with %+v", r, targets)
	}
	r, targets, _ = jobs.Advance(r, []scheduler.Instance{task("t1", api.TaskFinished, now)}, now)
	if r.Status != jobs.Success || len(targets) != 0 || !r.FinishedAt.Equal(now) {
		t.Errorf("run is %+v with %+v", r, targets)
	}
}

func TestFailureEndsARunOrStartsItsTaskAgain(t *testing.T) {
	now := at("2026-03-01T00:00:10Z")
	failed := []scheduler.Instance{task("t1", api.TaskFailed, now)}
	if r, targets, _ := jobs.Advance(run(jobs.Never), failed, now); r.Status != jobs.Failed || len(targets) != 0 || r.Reason == "" {
		t.Errorf("without restarts the run is %+v with %+v", r, targets)
	}
	r, targets, next := jobs.Advance(run(jobs.OnFailure), failed, now)
	if len(targets) != 0 || !next.Equal(now.Add(time.Second)) || r.Failures != 1 {
		t.Fatalf("in its back-off the run is %+v with %+v, next %s", r, targets, next)
	}
	// The same end counts once.
	r, targets, _ = jobs.Advance(r, failed, now.Add(time.Second))
	if len(targets) != 1 || r.Failures != 1 {
		t.Errorf("after it the run is %+v with %+v", r, targets)
	}
	r, targets, _ = jobs.Advance(r, []scheduler.Instance{task("t2", api.TaskFailed, now.Add(time.Hour))}, now.Add(time.Hour))
	if r.Status != jobs.Failed || len(targets) != 0 {
		t.Errorf("after its deadline the run is %+v with %+v", r, targets)
	}
}

func TestLostTaskIsRunAgain(t *testing.T) {
	now := at("2026-03-01T00:00:10Z")
	r, targets, _ := jobs.Advance(run(jobs.Never), []scheduler.Instance{task("t1", api.TaskLost, now)}, now)
	if r.Status.Ended() || len(targets) != 1 || r.Failures != 0 {
		t.Errorf("run is %+v with %+v", r, targets)
	}
}

func TestStoppedRunEndsItsTask(t *testing.T) {
	r, now := run(jobs.OnFailure), at("2026-03-01T00:00:10Z")
	r.Stop = true
	r, targets, _ := jobs.Advance(r, []scheduler.Instance{task("t1", api.TaskRunning, now)}, now)
	if r.Status.Ended() || len(targets) != 0 {
		t.Errorf("while its task ends, run is %+v with %+v", r, targets)
	}
	if r, _, _ = jobs.Advance(r, []scheduler.Instance{task("t1", api.TaskKilled, now)}, now); r.Status != jobs.Failed || r.Reason != "it was stopped" {
		t.Errorf("after it run is %+v", r)
	}
}

func TestRunThatNeverStartsFailsAtItsDeadline(t *testing.T) {
	r, _, next := jobs.Advance(run(jobs.OnFailure), nil, at("2026-03-01T00:00:10Z"))
	if want := at("2026-03-01T00:10:00Z"); !next.Equal(want) {
		t.Fatalf("next is %s, want %s", next, want)
	}
	if r, targets, _ := jobs.Advance(r, nil, next); r.Status != jobs.Failed || len(targets) != 0 {
		t.Errorf("run is %+v with %+v", r, targets)
	}
}
