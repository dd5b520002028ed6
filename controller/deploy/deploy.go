// Package deploy takes apps from what they are to what they shall be, in steps.
// It is pure: Plan makes a Deployment, and Advance, called whenever an instance
// has changed and at the time that it names, says how many instances of which
// version shall be now. The controllers' leader stores the deployments and hands
// the targets to package scheduler.
package deploy

import (
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Group is a group of apps and groups, as Marathon's.
type Group struct {
	ID           string    `json:"id"`
	Apps         []api.App `json:"apps"`
	Groups       []Group   `json:"groups"`
	Dependencies []string  `json:"dependencies"`
	Version      string    `json:"version,omitempty"`
}

// ActionType is what an action does, in Marathon's words.
type ActionType string

// The types of actions.
const (
	Start   ActionType = "StartApplication"   // make it known, with no instance yet
	Stop    ActionType = "StopApplication"    // end all and forget it
	Scale   ActionType = "ScaleApplication"   // more or fewer, or other labels, of the same tasks
	Restart ActionType = "RestartApplication" // replace the tasks by those of a new version
)

// Action is one app's part of a step.
type Action struct {
	Type ActionType `json:"action"`
	App  string     `json:"app"`
}

// Change is an app before and after; nil where it is not.
type Change struct {
	App  string   `json:"app"`
	From *api.App `json:"from,omitempty"`
	To   *api.App `json:"to,omitempty"`
	// Requires has the apps of the deployment that it depends on, before or after.
	Requires []string `json:"requires,omitempty"`
}

// State is where a deployment is.
type State string

// The states of a deployment.
const (
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed" // its progress deadline is over
)

// Deployment is a set of changes on its way.
type Deployment struct {
	ID      string     `json:"id"`
	Version string     `json:"version"`
	Changes []Change   `json:"changes"`
	Steps   [][]Action `json:"steps"`
	// Current step, from 0.
	Current int       `json:"current"`
	State   State     `json:"state"`
	Reason  string    `json:"reason,omitempty"` // of a failure
	Started time.Time `json:"started"`
	// Progress of the apps in the current step.
	Progress []Progress `json:"progress,omitempty"`
	// Promoted has the apps whose canaries were promoted.
	Promoted []string `json:"promoted,omitempty"`
	// RollbackOf is the deployment that this one takes back.
	RollbackOf string `json:"rollback_of,omitempty"`
}

// Progress is how far an app is in the current step.
type Progress struct {
	App string `json:"app"`
	// Done actions need nothing more.
	Done bool `json:"done,omitempty"`
	// Best that was reached, and when: the deadline runs from there.
	Best int       `json:"best"`
	At   time.Time `json:"at"`
	// Canary is since when all canaries serve; Switched is when traffic went over
	// to the new version (blueGreen).
	Canary   time.Time `json:"canary,omitzero"`
	Switched time.Time `json:"switched,omitzero"`
	// Waits says in words what the app waits for.
	Waits string `json:"waits,omitempty"`
}

// Observed is what is there.
type Observed struct {
	// Instances of the deployment's apps; others are not looked at.
	Instances []scheduler.Instance
	// Lost has the names of nodes that are dead or gone.
	Lost map[string]bool
	// Everywhere has how many nodes fit an app whose instances are "*".
	Everywhere map[string]int
}

// Result is what Advance decides.
type Result struct {
	// Deployment as it is to be stored.
	Deployment Deployment
	// Targets of every app of the deployment that shall have instances.
	Targets []scheduler.Target
	// Rollback is the deployment to begin with in place of a failed one, without
	// an id; nil when nothing is to be taken back.
	Rollback *Deployment
	// Next is when to advance again though nothing happens; zero: not before
	// something does.
	Next time.Time
}
