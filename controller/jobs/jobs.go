// Package jobs is the time and the life of jobs: when their schedules make runs,
// and what a run's tasks make of it. It is pure. The controllers' leader stores
// jobs and runs and hands the runs' targets to package scheduler; the API of
// Metronome is the server's.
package jobs

import (
	"time"

	"github.com/weirproject/weir/api"
)

// Job is a job as people define it, field for field that of Metronome where it
// says when and how often; App is how its tasks run.
type Job struct {
	ID          string            `json:"id"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// App is the completed definition of a task; its instances do not count.
	App       api.App    `json:"app"`
	Restart   Restart    `json:"restart"`
	Schedules []Schedule `json:"schedules,omitempty"`
	// Dependencies are jobs whose success since this job's own last success makes
	// a run of it; a job with dependencies has no schedules.
	Dependencies []string `json:"dependencies,omitempty"`
}

// Restart says what follows a failure.
type Restart struct {
	Policy RestartPolicy `json:"policy"`
	// ActiveDeadlineSeconds from the run's start, after which no task of it is
	// started again; 0: none.
	ActiveDeadlineSeconds float64 `json:"activeDeadlineSeconds,omitempty"`
}

// RestartPolicy is NEVER (also when empty) or ON_FAILURE.
type RestartPolicy string

// The restart policies.
const (
	Never     RestartPolicy = "NEVER"
	OnFailure RestartPolicy = "ON_FAILURE"
)

// Schedule makes runs.
type Schedule struct {
	ID       string `json:"id"`
	Cron     string `json:"cron"`               // five fields, or @daily and the like
	Timezone string `json:"timezone,omitempty"` // of the IANA data base; empty means UTC
	// StartingDeadlineSeconds after its time a run is not started any more; 0
	// means 900.
	StartingDeadlineSeconds float64     `json:"startingDeadlineSeconds,omitempty"`
	Concurrency             Concurrency `json:"concurrencyPolicy,omitempty"`
	Enabled                 bool        `json:"enabled"`
	// Since is when the schedule became what it is: earlier times make no runs.
	Since time.Time `json:"since,omitzero"`
	// Last is the time of the newest run that it made or gave up.
	Last time.Time `json:"last,omitzero"`
}

// Concurrency is ALLOW (also when empty) or FORBID.
type Concurrency string

// The concurrency policies.
const (
	Allow  Concurrency = "ALLOW"
	Forbid Concurrency = "FORBID" // no run while another one of the job is active
)

// Status is where a run is, in Metronome's words.
type Status string

// The states of a run.
const (
	Initial  Status = "INITIAL"
	Starting Status = "STARTING"
	Active   Status = "ACTIVE"
	Success  Status = "SUCCESS"
	Failed   Status = "FAILED"
)

// Ended tells whether nothing follows.
func (s Status) Ended() bool { return s == Success || s == Failed }

// Run is one run of a job.
type Run struct {
	ID        string    `json:"id"`
	Job       string    `json:"jobId"`
	Schedule  string    `json:"schedule,omitempty"` // that made it
	Status    Status    `json:"status"`
	CreatedAt time.Time `json:"createdAt"`
	// Due is the time that the schedule names.
	Due        time.Time `json:"due,omitzero"`
	FinishedAt time.Time `json:"completedAt,omitzero"`
	// Failures of its tasks so far, and when the last was.
	Failures int       `json:"failures,omitempty"`
	Failed   time.Time `json:"failedAt,omitzero"`
	Stop     bool      `json:"stop,omitempty"`   // asked for by a person
	Reason   string    `json:"reason,omitempty"` // of a failure
	// App is the job's, as it was when the run was made.
	App     api.App `json:"app"`
	Restart Restart `json:"restart"`
	// Counted has the tasks whose end is counted.
	Counted []string `json:"counted,omitempty"`
}
