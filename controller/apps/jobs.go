package apps

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/scheduler"
)

// RunsKept of each job that have ended.
const RunsKept = 20

// NewRunID is an id for a run: its time, and letters that tell it apart.
func NewRunID(now time.Time) string {
	return now.UTC().Format("20060102150405") + strings.ToLower(rand.Text()[:5])
}

// RunsOf a job, the oldest first.
func (v *View) RunsOf(job string) []jobs.Run {
	var list []jobs.Run
	for _, r := range v.Runs {
		if r.Job == job {
			list = append(list, *r)
		}
	}
	slices.SortFunc(list, func(a, b jobs.Run) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list
}

// runs makes those that are due, brings those that are there on, and says what
// shall run of them. It looks before ended tasks are taken out.
func (l *Loop) runs(v *View, w *work, now time.Time) (targets map[string][]scheduler.Target, next time.Time) {
	targets = map[string][]scheduler.Target{}
	byJob := map[string][]jobs.Run{}
	succeeded := map[string]time.Time{}
	for _, id := range slices.Sorted(maps.Keys(v.Runs)) {
		r := v.Runs[id]
		if !r.Status.Ended() {
			var of []scheduler.Instance
			for _, t := range v.TasksOf(jobs.TaskApp(*r)) {
				if entry := v.Wanted[t.ID]; entry != nil {
					of = append(of, instance(t, entry))
				}
			}
			after, want, until := jobs.Advance(*r, of, now)
			next = earlier(next, until)
			if targets[jobs.TaskApp(*r)] = want; !same(r, after) {
				key := runPrefix + id
				w.conditions[key] = v.versions[key]
				w.put(key, after)
			}
			r = &after
		}
		if byJob[r.Job] = append(byJob[r.Job], *r); r.Status == jobs.Success && r.FinishedAt.After(succeeded[r.Job]) {
			succeeded[r.Job] = r.FinishedAt
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.Jobs)) {
		next = earlier(next, l.due(v, w, v.Jobs[id], byJob[id], succeeded, now))
	}
	l.tidyRuns(v, w, byJob)
	return targets, next
}

func (l *Loop) due(v *View, w *work, j *jobs.Job, runs []jobs.Run, succeeded map[string]time.Time, now time.Time) time.Time {
	made, schedules, next := jobs.Due(*j, runs, now)
	began := time.Time{}
	busy := false
	for _, r := range runs {
		if r.CreatedAt.After(began) {
			began = r.CreatedAt
		}
		busy = busy || !r.Status.Ended()
	}
	if !busy && jobs.Ready(*j, began, succeeded) {
		made = append(made, jobs.NewRun(*j, "", time.Time{}, now))
	}
	for _, r := range made {
		r.ID = NewRunID(now)
		w.put(runPrefix+r.ID, r)
	}
	if after := *j; len(made) > 0 || !same(j.Schedules, schedules) {
		after.Schedules = schedules
		key := jobPrefix + j.ID
		w.conditions[key] = v.versions[key]
		w.put(key, after)
	}
	return next
}

// tidyRuns forgets old runs, and those of jobs that are gone.
func (l *Loop) tidyRuns(v *View, w *work, byJob map[string][]jobs.Run) {
	for job, list := range byJob {
		ended := slices.DeleteFunc(slices.Clone(list), func(r jobs.Run) bool { return !r.Status.Ended() || v.Runs[r.ID] == nil || !v.Runs[r.ID].Status.Ended() })
		slices.SortFunc(ended, func(a, b jobs.Run) int { return b.CreatedAt.Compare(a.CreatedAt) })
		most := RunsKept
		if v.Jobs[job] == nil {
			most = 0
		}
		for _, r := range ended[min(most, len(ended)):] {
			w.remove(runPrefix + r.ID)
		}
	}
}
