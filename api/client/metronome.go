package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
)

// PathJobs is where a controller answers the API of Metronome.
const PathJobs = "/v1/jobs"

// JobState is a job with its runs.
type JobState struct {
	ID          string `json:"id"`
	Description string `json:"description,omitempty"`
	Run         struct {
		Cmd  string   `json:"cmd,omitempty"`
		Args []string `json:"args,omitempty"`
	} `json:"run"`
	Schedules []struct {
		ID       string `json:"id"`
		Cron     string `json:"cron"`
		Timezone string `json:"timezone,omitempty"`
		Enabled  bool   `json:"enabled"`
	} `json:"schedules,omitempty"`
	ActiveRuns     []JobRun `json:"activeRuns,omitempty"`
	HistorySummary struct {
		SuccessCount  int    `json:"successCount"`
		FailureCount  int    `json:"failureCount"`
		LastSuccessAt string `json:"lastSuccessAt"`
		LastFailureAt string `json:"lastFailureAt"`
	} `json:"historySummary,omitzero"`
}

// JobRun is one run of a job.
type JobRun struct {
	ID          string `json:"id"`
	JobID       string `json:"jobId"`
	Status      string `json:"status"`
	CreatedAt   string `json:"createdAt"`
	CompletedAt string `json:"completedAt,omitempty"`
	Reason      string `json:"reason,omitempty"`
}

// Ended tells whether nothing follows.
func (r *JobRun) Ended() bool { return r.Status == "SUCCESS" || r.Status == "FAILED" }

var jobEmbeds = url.Values{"embed": {"schedules", "activeRuns", "historySummary"}}

// Jobs lists jobs.
func (c *Cluster) Jobs(ctx context.Context) ([]JobState, error) {
	return ask[[]JobState](ctx, c, http.MethodGet, PathJobs, jobEmbeds, nil, nil)
}

// Job shows one job.
func (c *Cluster) Job(ctx context.Context, id string) (JobState, error) {
	return ask[JobState](ctx, c, http.MethodGet, PathJobs+"/"+url.PathEscape(id), jobEmbeds, nil, nil)
}

// ApplyJob makes a job or replaces it.
func (c *Cluster) ApplyJob(ctx context.Context, id string, definition json.RawMessage) error {
	_, err := ask[JobState](ctx, c, http.MethodPut, PathJobs+"/"+url.PathEscape(id), nil, nil, definition)
	var problem *Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		_, err = ask[JobState](ctx, c, http.MethodPost, PathJobs, nil, nil, definition)
	}
	return err
}

// RunJob begins a run now.
func (c *Cluster) RunJob(ctx context.Context, id string) (JobRun, error) {
	return ask[JobRun](ctx, c, http.MethodPost, PathJobs+"/"+url.PathEscape(id)+"/runs", nil, nil, nil)
}

// JobRun shows one run.
func (c *Cluster) JobRun(ctx context.Context, id, run string) (JobRun, error) {
	return ask[JobRun](ctx, c, http.MethodGet, PathJobs+"/"+url.PathEscape(id)+"/runs/"+url.PathEscape(run), nil, nil, nil)
}

// StopJobRun ends a run.
func (c *Cluster) StopJobRun(ctx context.Context, id, run string) error {
	return c.done(ctx, http.MethodPost, PathJobs+"/"+url.PathEscape(id)+"/runs/"+url.PathEscape(run)+"/actions/stop", nil)
}

// RemoveJob deletes a job; with stop its runs are ended, without they keep it.
func (c *Cluster) RemoveJob(ctx context.Context, id string, stop bool) error {
	query := url.Values{}
	if stop {
		query.Set("stopCurrentJobRuns", "true")
	}
	return c.done(ctx, http.MethodDelete, PathJobs+"/"+url.PathEscape(id), query)
}

// done sends a request whose answer has nothing in it.
func (c *Cluster) done(ctx context.Context, method, path string, query url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	response, err := c.do(ctx, method, path, query, nil, nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
