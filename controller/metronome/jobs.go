package metronome

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/jobs"
)

// shapeJob is a job as Metronome shows it, with what embed asks for.
func shapeJob(v *apps.View, j *jobs.Job, embed []string) map[string]any {
	out := map[string]any{}
	text, _ := json.Marshal(specOf(j)) // a spec always marshals
	_ = json.Unmarshal(text, &out)
	runs := v.RunsOf(j.ID)
	for _, e := range embed {
		switch e {
		case "schedules":
			out["schedules"] = orEmpty(j.Schedules)
		case "activeRuns":
			active := []map[string]any{}
			for _, r := range runs {
				if !r.Status.Ended() {
					active = append(active, shapeRun(v, r))
				}
			}
			out["activeRuns"] = active
		case "history":
			out["history"] = history(runs, true)
		case "historySummary":
			out["historySummary"] = history(runs, false)
		}
	}
	return out
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func history(runs []jobs.Run, whole bool) map[string]any {
	ended := map[jobs.Status][]map[string]any{jobs.Success: {}, jobs.Failed: {}}
	last := map[jobs.Status]any{}
	for _, r := range runs {
		if r.Status.Ended() {
			last[r.Status] = apps.Stamp(r.FinishedAt)
			ended[r.Status] = append(ended[r.Status], map[string]any{"id": r.ID, "createdAt": apps.Stamp(r.CreatedAt), "finishedAt": apps.Stamp(r.FinishedAt)})
		}
	}
	out := map[string]any{
		"successCount": len(ended[jobs.Success]), "failureCount": len(ended[jobs.Failed]),
		"lastSuccessAt": last[jobs.Success], "lastFailureAt": last[jobs.Failed],
	}
	if whole {
		out["successfulFinishedRuns"], out["failedFinishedRuns"] = ended[jobs.Success], ended[jobs.Failed]
	}
	return out
}

func shapeRun(v *apps.View, r jobs.Run) map[string]any {
	tasks := []map[string]any{}
	for _, t := range v.TasksOf(jobs.TaskApp(r)) {
		tasks = append(tasks, map[string]any{"id": t.ID, "status": t.MarathonState(), "host": t.Host, "node": t.Node, "startedAt": apps.Stamp(t.Launched)})
	}
	out := map[string]any{"id": r.ID, "jobId": r.Job, "status": r.Status, "createdAt": apps.Stamp(r.CreatedAt), "completedAt": nil, "tasks": tasks}
	if r.Status.Ended() {
		out["completedAt"] = apps.Stamp(r.FinishedAt)
	}
	if r.Reason != "" {
		out["reason"] = r.Reason
	}
	return out
}

func (q *request) embed() []string {
	var all []string
	for _, e := range q.r.URL.Query()["embed"] {
		all = append(all, strings.Split(e, ",")...)
	}
	return all
}

func (q *request) list() error {
	list := []map[string]any{}
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Jobs)) {
			list = append(list, shapeJob(v, v.Jobs[id], q.embed()))
		}
	})
	send(q.w, http.StatusOK, list)
	return nil
}

func (q *request) show(id string) error {
	var out any
	err := q.job(id, func(v *apps.View, j *jobs.Job) error {
		out = shapeJob(v, j, q.embed())
		return nil
	})
	if err == nil {
		send(q.w, http.StatusOK, out)
	}
	return err
}

func (q *request) create() error {
	s, err := body[spec](q)
	if err != nil {
		return err
	}
	return q.keep(&s, http.StatusCreated, func(v *apps.View) error {
		if v.Jobs[s.ID] != nil {
			return refuse(http.StatusConflict, "Job with this id already exists")
		}
		return nil
	})
}

func (q *request) put(id string) error {
	s, err := body[spec](q)
	if err != nil {
		return err
	}
	if s.ID == "" {
		s.ID = id
	}
	if s.ID != id {
		return invalid("/id", "is not the job that the address names, "+id)
	}
	return q.keep(&s, http.StatusOK, func(v *apps.View) error {
		old := v.Jobs[id]
		if old == nil {
			return noJob(id)
		}
		if s.Schedules == nil {
			s.Schedules = old.Schedules
		}
		return nil
	})
}

func (q *request) keep(s *spec, status int, check func(*apps.View) error) error {
	var j *jobs.Job
	err := q.write(func(v *apps.View) (*apps.Write, error) {
		err := check(v)
		if err != nil {
			return nil, err
		}
		if j, err = s.job(); err != nil {
			return nil, err
		}
		begin(j.Schedules, q.o.Now())
		return &apps.Write{Jobs: map[string]*jobs.Job{s.ID: j}}, nil
	})
	if err != nil {
		return err
	}
	send(q.w, status, specOf(j))
	return nil
}

// begin schedules that are new: times before now make no runs.
func begin(schedules []jobs.Schedule, now time.Time) {
	for i := range schedules {
		if schedules[i].Since.IsZero() {
			schedules[i].Since = now.UTC()
		}
	}
}

// remove deletes a job; its runs are stopped first where that is asked for.
func (q *request) remove(id string) error {
	err := q.write(func(v *apps.View) (*apps.Write, error) {
		if v.Jobs[id] == nil {
			return nil, noJob(id)
		}
		w := &apps.Write{Jobs: map[string]*jobs.Job{id: nil}}
		for _, r := range v.RunsOf(id) {
			if r.Status.Ended() {
				continue
			}
			if q.r.URL.Query().Get("stopCurrentJobRuns") != "true" {
				return nil, refuse(http.StatusConflict, "There are active job runs. Override with stopCurrentJobRuns=true")
			}
			r.Stop = true
			w.Runs = append(w.Runs, r)
		}
		return w, nil
	})
	if err == nil {
		q.w.WriteHeader(http.StatusOK)
	}
	return err
}

func (q *request) listSchedules(id string) error {
	var list []jobs.Schedule
	err := q.job(id, func(_ *apps.View, j *jobs.Job) error {
		list = orEmpty(j.Schedules)
		return nil
	})
	if err == nil {
		send(q.w, http.StatusOK, list)
	}
	return err
}

func noSchedule(id string) error {
	return refuse(http.StatusNotFound, "Schedule '%s' does not exist", id)
}

func (q *request) showSchedule(id, name string) error {
	var found jobs.Schedule
	err := q.job(id, func(_ *apps.View, j *jobs.Job) error {
		at := indexOf(j.Schedules, name)
		if at < 0 {
			return noSchedule(name)
		}
		found = j.Schedules[at]
		return nil
	})
	if err == nil {
		send(q.w, http.StatusOK, found)
	}
	return err
}

func indexOf(list []jobs.Schedule, name string) int {
	return slices.IndexFunc(list, func(s jobs.Schedule) bool { return s.ID == name })
}

// putSchedule makes a schedule, or changes the one of a name.
func (q *request) putSchedule(id, name string) error {
	s, err := body[jobs.Schedule](q)
	if err != nil {
		return err
	}
	if name != "" {
		s.ID = name
	}
	s.Since, s.Last = q.o.Now().UTC(), time.Time{}
	if !jobID.MatchString(s.ID) {
		return invalid("/id", "must have a-z, 0-9, and hyphens and dots within")
	}
	if err := s.Validate(); err != nil {
		return invalid("/cron", err.Error())
	}
	err = q.write(func(v *apps.View) (*apps.Write, error) {
		j := v.Jobs[id]
		if j == nil {
			return nil, noJob(id)
		}
		next := *j
		next.Schedules = slices.Clone(j.Schedules)
		switch at := indexOf(next.Schedules, s.ID); {
		case at >= 0 && name == "":
			return nil, refuse(http.StatusConflict, "A schedule with this id already exists")
		case at >= 0:
			next.Schedules[at] = s
		case name != "":
			return nil, noSchedule(name)
		case len(j.Dependencies) > 0:
			return nil, invalid("/", "a job with dependencies has no schedules")
		default:
			next.Schedules = append(next.Schedules, s)
		}
		return &apps.Write{Jobs: map[string]*jobs.Job{id: &next}}, nil
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if name == "" {
		status = http.StatusCreated
	}
	send(q.w, status, s)
	return nil
}

func (q *request) removeSchedule(id, name string) error {
	err := q.write(func(v *apps.View) (*apps.Write, error) {
		j := v.Jobs[id]
		if j == nil {
			return nil, noJob(id)
		}
		at := indexOf(j.Schedules, name)
		if at < 0 {
			return nil, noSchedule(name)
		}
		next := *j
		next.Schedules = slices.Delete(slices.Clone(j.Schedules), at, at+1)
		return &apps.Write{Jobs: map[string]*jobs.Job{id: &next}}, nil
	})
	if err == nil {
		q.w.WriteHeader(http.StatusOK)
	}
	return err
}

func (q *request) listRuns(id string) error {
	list := []map[string]any{}
	err := q.job(id, func(v *apps.View, _ *jobs.Job) error {
		for _, r := range v.RunsOf(id) {
			if !r.Status.Ended() {
				list = append(list, shapeRun(v, r))
			}
		}
		return nil
	})
	if err == nil {
		send(q.w, http.StatusOK, list)
	}
	return err
}

func (q *request) showRun(id, run string) error {
	var out any
	err := q.job(id, func(v *apps.View, _ *jobs.Job) error {
		r := v.Runs[run]
		if r == nil || r.Job != id {
			return refuse(http.StatusNotFound, "Job Run '%s' does not exist", run)
		}
		out = shapeRun(v, *r)
		return nil
	})
	if err == nil {
		send(q.w, http.StatusOK, out)
	}
	return err
}

func (q *request) startRun(id string) error {
	var made jobs.Run
	err := q.write(func(v *apps.View) (*apps.Write, error) {
		j := v.Jobs[id]
		if j == nil {
			return nil, noJob(id)
		}
		now := q.o.Now().UTC()
		made = jobs.NewRun(*j, "", time.Time{}, now)
		made.ID = apps.NewRunID(now)
		return &apps.Write{Runs: []jobs.Run{made}}, nil
	})
	if err != nil {
		return err
	}
	var out any
	q.o.Catalog.Read(func(v *apps.View) { out = shapeRun(v, made) })
	send(q.w, http.StatusCreated, out)
	return nil
}

func (q *request) stopRun(id, run string) error {
	err := q.write(func(v *apps.View) (*apps.Write, error) {
		r := v.Runs[run]
		if r == nil || r.Job != id {
			return nil, refuse(http.StatusNotFound, "Job Run '%s' does not exist", run)
		}
		next := *r
		next.Stop = true
		return &apps.Write{Runs: []jobs.Run{next}}, nil
	})
	if err == nil {
		q.w.WriteHeader(http.StatusOK)
	}
	return err
}
