// Package scheduler decides which tasks run on which nodes: Place turns a State
// into a Plan. It is pure: it reads no clock, no store and no network, and the
// same State, seed included, gives the same Plan. The controllers' leader calls
// it and stores what comes of it; nobody else does.
//
// Place plans everything from scratch. A Table keeps what it knows between plans
// and looks only at apps that something has happened to.
package scheduler

import (
	"time"

	"github.com/weirproject/weir/api"
)

// State is all that decisions depend on.
type State struct {
	Nodes []Node
	// Targets are what shall run: several of one app while it is upgraded.
	Targets   []Target
	Instances []Instance
	// Histories of apps that have failed or been killed of late.
	Histories []History
	// Headroom is the share of every node's cores and memory, 0 to 1, that no
	// task is given.
	Headroom float64
	// Seed of the ids and ports of new tasks: give every plan another one.
	Seed uint64
	// Rebalance has the ids of apps whose instances are to be spread anew: name an
	// app in one State only, since what follows is seen in its instances.
	Rebalance []string
}

// Node is a node with what the controllers know of it. Resources must be known:
// a node without cores takes only tasks that ask for none.
type Node struct {
	api.Node
	// Since is when Health became so.
	Since time.Time
}

// Target is one version of an app and how many instances of it shall be.
type Target struct {
	// App is completed (api.App.Complete).
	App api.App
	// Count of instances; api.EveryNode for one on every node that fits.
	Count int
	// Keep launches no instance, and ends what is above Count.
	Keep bool
	// Limit of all the app's instances, of other versions and those that are told
	// to end included: above it nothing is launched for this target. 0: none.
	Limit int
	// Held instances get no traffic. The scheduler itself does not care.
	Held bool
}

// Instance is a task that was launched and is not forgotten.
type Instance struct {
	ID  string
	App string
	// Version of the app that it was launched from, as Version says.
	Version string
	Node    string
	// Spec as launched; its Kill tells that the task is to end.
	Spec  *api.TaskSpec
	State api.TaskState // as the node has last said; empty means staging
	Since time.Time     // when State became so
	// Launched is when it was decided on.
	Launched time.Time
	// Replaces is the Launch's: while both are there, that one goes as soon as
	// enough others serve.
	Replaces string
	// Healthy and Ready are nil while nothing is known.
	Healthy *bool
	Ready   *bool
	// Checks as the node has last told; one that has failed as often in a row as
	// the app's check allows ends the instance, as far as the breaker lets it.
	Checks []api.CheckStatus
}

// Stopping tells whether the instance has been told to end.
func (i *Instance) Stopping() bool {
	return i.State == api.TaskKilling || i.Spec != nil && i.Spec.Kill
}

// Serving tells whether the instance may be given traffic: it runs, is not told
// to end, and passes the checks that it has.
func (i *Instance) Serving() bool {
	if i.State != api.TaskRunning || i.Stopping() {
		return false
	}
	if i.Healthy != nil && !*i.Healthy {
		return false
	}
	if i.Spec == nil {
		return true
	}
	if len(i.Spec.Checks) > 0 && i.Healthy == nil {
		return false
	}
	return i.Spec.Ready == nil || i.Ready != nil && *i.Ready
}

// Version names what an app's tasks are launched from: when its definition last
// changed in a way that needs new tasks.
func Version(a *api.App) string {
	if a.VersionInfo != nil && a.VersionInfo.LastConfigChangeAt != "" {
		return a.VersionInfo.LastConfigChangeAt
	}
	return a.Version
}

// Plan is what to do now.
type Plan struct {
	Launch []Launch
	Kill   []Kill
	// Forget has the ids of instances to delete: their nodes are lost or gone,
	// and if such a node comes back it ends what it is not told to run.
	Forget  []string
	Pending []Pending
	// Breakers that hold back kills now.
	Breakers []Breaker
	// Next is when to plan again though nothing happens; zero: not before
	// something does.
	Next time.Time
}

// Empty tells whether there is nothing to do; something may yet be pending.
func (p *Plan) Empty() bool { return len(p.Launch)+len(p.Kill)+len(p.Forget) == 0 }

// Launch is a task to launch.
type Launch struct {
	App     string
	Version string
	Node    string
	Spec    api.TaskSpec
	// Replaces is the instance that it is launched for, if any.
	Replaces string
}

// Kill is an instance to end.
type Kill struct {
	ID     string
	App    string
	Node   string
	Reason string
	// Unhealthy kills count against the breaker: keep them in the History.
	Unhealthy bool
}

// Pending are instances that could not be launched.
type Pending struct {
	App     string
	Version string
	Count   int
	// Nodes that were looked at, and why they declined: every node counts once.
	Nodes   int
	Reasons []Reason
	// Next try, when it is back-off that they wait for.
	Next time.Time
}

// Reason is why nodes declined.
type Reason struct {
	// Kind is dead, suspect, draining, role, constraint, cpus, mem, disk, gpus or
	// ports.
	Kind string
	// Text says it in words, such as "insufficient cpus".
	Text  string
	Nodes int
}

// Breaker says that an app's unhealthy instances are not ended as fast as their
// checks ask for.
type Breaker struct {
	App       string
	Unhealthy int // instances whose checks fail
	Held      int // of them, that are not ended for now
	Until     time.Time
}

// Place decides everything from scratch.
func Place(s *State, now time.Time) *Plan {
	return NewTable(s).Plan(now)
}
