package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/weirproject/weir/api"
)

// PathMarathon is below which a controller answers the API of Marathon.
const PathMarathon = "/marathon/v2"

// AppTask is a task as the API of Marathon shows it.
type AppTask struct {
	ID          string `json:"id"`
	App         string `json:"appId"`
	Host        string `json:"host"`
	Node        string `json:"slaveId"`
	State       string `json:"state"`
	Version     string `json:"version"`
	Ports       []int  `json:"ports"`
	StartedAt   string `json:"startedAt"`
	IPAddresses []struct {
		IPAddress string `json:"ipAddress"`
	} `json:"ipAddresses"`
	HealthCheckResults []struct {
		Alive            bool   `json:"alive"`
		LastFailureCause string `json:"lastFailureCause"`
	} `json:"healthCheckResults"`
}

// AppState is an app with what runs of it.
type AppState struct {
	api.App
	TasksStaged    int       `json:"tasksStaged"`
	TasksRunning   int       `json:"tasksRunning"`
	TasksHealthy   int       `json:"tasksHealthy"`
	TasksUnhealthy int       `json:"tasksUnhealthy"`
	Tasks          []AppTask `json:"tasks,omitempty"`
	Deployments    []struct {
		ID string `json:"id"`
	} `json:"deployments,omitempty"`
	LastTaskFailure *AppFailure `json:"lastTaskFailure,omitempty"`
	// Warnings are what is wrong with it and does not keep it from running.
	Warnings []string `json:"warnings,omitempty"`
}

// AppFailure is how a task of an app ended that should not have.
type AppFailure struct {
	TaskID    string `json:"taskId"`
	Host      string `json:"host"`
	State     string `json:"state"`
	Message   string `json:"message"`
	Timestamp string `json:"timestamp"`
}

// AppDeployment is a deployment that runs.
type AppDeployment struct {
	ID           string   `json:"id"`
	Version      string   `json:"version"`
	AffectedApps []string `json:"affectedApps"`
	CurrentStep  int      `json:"currentStep"`
	TotalSteps   int      `json:"totalSteps"`
	Progress     []struct {
		App   string `json:"app"`
		Done  bool   `json:"done"`
		Waits string `json:"waits"`
	} `json:"progress"`
}

// AppQueue is what of an app could not be launched, and why.
type AppQueue struct {
	App struct {
		ID string `json:"id"`
	} `json:"app"`
	Count   int    `json:"count"`
	Since   string `json:"since"`
	NextTry string `json:"nextTry"`
	Delay   struct {
		TimeLeftSeconds int `json:"timeLeftSeconds"`
	} `json:"delay"`
	Summary struct {
		Nodes   int `json:"processedOffersCount"`
		Reasons []struct {
			Reason   string `json:"reason"`
			Text     string `json:"text"`
			Declined int    `json:"declined"`
		} `json:"rejectSummaryLastOffers"`
	} `json:"processedOffersSummary"`
}

// AppChange is what a write begins.
type AppChange struct {
	Version      string `json:"version"`
	DeploymentID string `json:"deploymentId"`
}

// askMarathon asks for problems in the words of the other routes.
func askMarathon[T any](ctx context.Context, c *Cluster, method, path string, query url.Values, body any) (T, error) {
	return ask[T](ctx, c, method, PathMarathon+path, query, http.Header{"Accept": {"application/json, " + ProblemType}}, body)
}

// Apps lists apps; a selector such as tier==front, or an empty one for all.
func (c *Cluster) Apps(ctx context.Context, selector string) ([]AppState, error) {
	query := url.Values{}
	if selector != "" {
		query.Set("label", selector)
	}
	list, err := askMarathon[struct{ Apps []AppState }](ctx, c, http.MethodGet, "/apps", query, nil)
	return list.Apps, err
}

// App shows one app by its id, such as /shop/web.
func (c *Cluster) App(ctx context.Context, id string) (AppState, error) {
	one, err := askMarathon[struct{ App AppState }](ctx, c, http.MethodGet, "/apps"+id, nil, nil)
	return one.App, err
}

// RunApp makes an app of a definition; the error is a *Problem with the status
// 409 when there is one of its id.
func (c *Cluster) RunApp(ctx context.Context, definition json.RawMessage) (AppState, error) {
	return askMarathon[AppState](ctx, c, http.MethodPost, "/apps", nil, definition)
}

// ApplyApp makes an app or replaces it whole. With force it ends what else is
// under way with it.
func (c *Cluster) ApplyApp(ctx context.Context, id string, definition json.RawMessage, force bool) (AppChange, error) {
	return askMarathon[AppChange](ctx, c, http.MethodPut, "/apps"+id, forced(force, "partialUpdate", "false"), definition)
}

// UpdateApp changes some fields of an app.
func (c *Cluster) UpdateApp(ctx context.Context, id string, fields map[string]any, force bool) (AppChange, error) {
	return askMarathon[AppChange](ctx, c, http.MethodPatch, "/apps"+id, forced(force), fields)
}

// RestartApp replaces all tasks of an app.
func (c *Cluster) RestartApp(ctx context.Context, id string, force bool) (AppChange, error) {
	return askMarathon[AppChange](ctx, c, http.MethodPost, "/apps"+id+"/restart", forced(force), nil)
}

// RemoveApp ends an app and forgets it.
func (c *Cluster) RemoveApp(ctx context.Context, id string, force bool) (AppChange, error) {
	return askMarathon[AppChange](ctx, c, http.MethodDelete, "/apps"+id, forced(force), nil)
}

// AppVersions lists the versions of an app that are kept, the newest first.
func (c *Cluster) AppVersions(ctx context.Context, id string) ([]string, error) {
	list, err := askMarathon[struct{ Versions []string }](ctx, c, http.MethodGet, "/apps"+id+"/versions", nil, nil)
	return list.Versions, err
}

// AppTasks lists the tasks of all apps.
func (c *Cluster) AppTasks(ctx context.Context) ([]AppTask, error) {
	list, err := askMarathon[struct{ Tasks []AppTask }](ctx, c, http.MethodGet, "/tasks", nil, nil)
	return list.Tasks, err
}

// AppDeployments lists the deployments that run.
func (c *Cluster) AppDeployments(ctx context.Context) ([]AppDeployment, error) {
	return askMarathon[[]AppDeployment](ctx, c, http.MethodGet, "/deployments", nil, nil)
}

// AppQueues lists what waits to be launched.
func (c *Cluster) AppQueues(ctx context.Context) ([]AppQueue, error) {
	list, err := askMarathon[struct{ Queue []AppQueue }](ctx, c, http.MethodGet, "/queue", nil, nil)
	return list.Queue, err
}

func forced(force bool, more ...string) url.Values {
	query := url.Values{}
	if force {
		query.Set("force", "true")
	}
	for i := 0; i+1 < len(more); i += 2 {
		query.Set(more[i], more[i+1])
	}
	return query
}
