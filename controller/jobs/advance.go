package jobs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// TaskApp is what the tasks of a run are instances of: the job's id with dots as
// slashes, and the run's below it.
func TaskApp(r Run) string {
	return "/" + strings.ReplaceAll(r.Job, ".", "/") + "/" + r.ID
}

// Advance says what has become of a run, and the target for its task: none when
// it has ended or waits for its back-off. Instances has its tasks, ended ones
// included until they were seen here; next is when to ask again though nothing
// happens, zero: not before. Ask before every plan of the scheduler, with the
// instances that it sees: it would start a task anew that has just succeeded.
func Advance(r Run, instances []scheduler.Instance, now time.Time) (Run, []scheduler.Target, time.Time) {
	if r.Status.Ended() {
		return r, nil, time.Time{}
	}
	r.Counted = slices.Clone(r.Counted)
	alive, running := 0, false
	id := TaskApp(r)
	for i := range instances {
		task := &instances[i]
		switch {
		case task.App != id:
		case task.State.Ended():
			r.ended(task, now)
		default:
			alive++
			running = running || task.State == api.TaskRunning
		}
	}
	switch {
	case r.Status.Ended():
		return r, nil, time.Time{}
	case r.Stop && alive == 0:
		r.end(Failed, "it was stopped", now)
		return r, nil, time.Time{}
	case r.Stop:
		return r, nil, time.Time{}
	case running:
		r.Status = Active
	case r.Status == Initial || r.Status == Active:
		r.Status = Starting
	}
	if alive == 0 && r.over(now) {
		r.end(Failed, "its deadline is over", now)
		return r, nil, time.Time{}
	}
	a := r.App
	a.ID, a.Instances = id, 1
	if a.Version == "" {
		a.Version = r.CreatedAt.UTC().Format(time.RFC3339Nano)
	}
	if wait := scheduler.Delay(&a, r.Failures); alive == 0 && r.Failures > 0 {
		if again := r.Failed.Add(wait); again.After(now) {
			return r, nil, again
		}
	}
	next := r.deadline()
	if r.over(now) {
		next = time.Time{}
	}
	return r, []scheduler.Target{{App: a, Count: 1}}, next
}

// ended takes the end of a task into account, once. A task that a lost node took
// along, and one that was ended because its node is drained, is no failure: it
// is run again.
func (r *Run) ended(task *scheduler.Instance, now time.Time) {
	if slices.Contains(r.Counted, task.ID) {
		return
	}
	r.Counted = append(r.Counted, task.ID)
	switch task.State {
	case api.TaskFinished:
		r.end(Success, "", now)
	case api.TaskFailed:
		r.Failures++
		r.Failed = task.Since
		if r.Restart.Policy != OnFailure {
			r.end(Failed, "its task failed", now)
		} else if r.over(now) {
			r.end(Failed, fmt.Sprintf("its task failed %d times, and its deadline is over", r.Failures), now)
		}
	}
}

func (r *Run) end(status Status, reason string, now time.Time) {
	if r.Status.Ended() {
		return
	}
	r.Status, r.Reason, r.FinishedAt = status, reason, now
}

// deadline is until when tasks may be started; zero for ever.
func (r *Run) deadline() time.Time {
	if r.Restart.ActiveDeadlineSeconds <= 0 {
		return time.Time{}
	}
	return r.CreatedAt.Add(time.Duration(r.Restart.ActiveDeadlineSeconds * float64(time.Second)))
}

func (r *Run) over(now time.Time) bool {
	d := r.deadline()
	return !d.IsZero() && !d.After(now)
}
