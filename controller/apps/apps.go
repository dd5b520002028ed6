// Package apps keeps apps and runs them: the layout of what the store holds of
// them, the Catalog that every controller has of it in memory, the Intake that
// keeps what nodes report of tasks, and the Loop of the leader, which brings
// deployments on, has package scheduler decide, and derives the services of the
// apps' ports. People's side of it, the API of Marathon, is package marathon.
// It starts no process and speaks to no node.
package apps

import (
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/scheduler"
)

// The store's layout; ids of apps and groups stand without their first slash.
// What nodes get of it is in package hub's part of the store.
//
//	apps/app/<id>                an api.App: what shall be
//	apps/version/<id>//<version> an api.App as it was or is
//	apps/group/<id>              a Group that was written as such
//	apps/deployment/<id>         a deploy.Deployment that runs
//	apps/task/<id>               a Task
//	apps/history/<app>           a scheduler.History
//	apps/queue/<app>             a Queue: what could not be launched
//	apps/failure/<app>           a Failure: the last one
//	apps/ended/<deployment>      an Ending, for a while
//	apps/ask/<app>               an Ask of the leader
//	apps/job/<id>                a jobs.Job
//	apps/run/<id>                a jobs.Run
//	apps/gate                    written by every write of people, so that two never cross
const (
	prefix        = "apps/"
	appPrefix     = prefix + "app/"
	versionPrefix = prefix + "version/"
	groupPrefix   = prefix + "group/"
	deployPrefix  = prefix + "deployment/"
	taskPrefix    = prefix + "task/"
	historyPrefix = prefix + "history/"
	queuePrefix   = prefix + "queue/"
	failurePrefix = prefix + "failure/"
	endedPrefix   = prefix + "ended/"
	askPrefix     = prefix + "ask/"
	jobPrefix     = prefix + "job/"
	runPrefix     = prefix + "run/"
	gateKey       = prefix + "gate"
)

// VersionsKept of each app.
const VersionsKept = 50

func bare(id string) string { return strings.TrimPrefix(id, "/") }

// Group is what was written of a group itself; its apps and groups are known by
// their ids.
type Group struct {
	ID           string   `json:"id"`
	Dependencies []string `json:"dependencies,omitempty"`
	Version      string   `json:"version"`
}

// Task is a task as the controllers know it.
type Task struct {
	ID      string `json:"id"`
	App     string `json:"app"`
	Version string `json:"version"` // of the app, as scheduler.Version says
	Node    string `json:"node"`
	// Host is the address of the node.
	Host     string         `json:"host,omitempty"`
	Ports    []api.TaskPort `json:"ports,omitempty"`
	Launched time.Time      `json:"launched"`
	// Replaces is the instance that it is launched for, if any.
	Replaces string `json:"replaces,omitempty"`
	// Kill says why it was told to end; empty: it was not.
	Kill string `json:"kill,omitempty"`
	// KillAt is when its node is told so: a moment after everybody was told to
	// give it no more connections.
	KillAt time.Time      `json:"kill_at,omitzero"`
	Status api.TaskStatus `json:"status"`
	// Checks that it has: without any it is healthy as soon as it runs.
	Checks int `json:"checks,omitempty"`
}

// State of the task; staging as long as its node has said nothing.
func (t *Task) State() api.TaskState {
	switch {
	case t.Status.State == "":
		return api.TaskStaging
	case t.Kill != "" && !t.Status.State.Ended():
		return api.TaskKilling
	}
	return t.Status.State
}

// Queue is what of an app could not be launched, and why.
type Queue struct {
	scheduler.Pending
	Since time.Time `json:"since"`
}

// Failure is how a task of an app ended that should not have.
type Failure struct {
	Task api.TaskStatus `json:"task"`
	Host string         `json:"host"`
	Node string         `json:"node"`
	// Version of the app.
	Version string    `json:"version"`
	At      time.Time `json:"at"`
}

// Ending is how a deployment ended.
type Ending struct {
	Deployment deploy.Deployment `json:"deployment"`
	At         time.Time         `json:"at"`
	// Follows is the deployment that takes it back, if any.
	Follows string `json:"follows,omitempty"`
}

// Ask is what people want of the leader that is no change of an app.
type Ask struct {
	App string `json:"app"`
	// Kill has tasks to end; Wipe forgets those that their nodes do not end.
	Kill []string `json:"kill,omitempty"`
	Wipe bool     `json:"wipe,omitempty"`
	// NoDelay launches without waiting for the end of a back-off.
	NoDelay bool `json:"no_delay,omitempty"`
	// Rebalance spreads the instances anew.
	Rebalance bool `json:"rebalance,omitempty"`
}
