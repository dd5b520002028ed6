package apps

import (
	"maps"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/jobs"
	"github.com/weirproject/weir/controller/scheduler"
)

// View is all that is known of apps. What its maps point to is immutable; the
// maps themselves are only to be read, and only within Catalog.Read.
type View struct {
	Apps        map[string]*api.App
	Versions    map[string]map[string]*api.App // by app and version
	Groups      map[string]*Group
	Deployments map[string]*deploy.Deployment
	Tasks       map[string]*Task
	Histories   map[string]*scheduler.History
	Queues      map[string]*Queue
	Failures    map[string]*Failure
	Ended       map[string]*Ending
	Jobs        map[string]*jobs.Job
	Runs        map[string]*jobs.Run
	// Wanted are the tasks as their nodes are told.
	Wanted map[string]*hub.TaskEntry

	asks     map[string]*Ask
	byApp    map[string]map[string]*Task
	versions map[string]uint64 // of the store's keys
	gate     uint64
}

func newView() *View {
	return &View{
		Apps: map[string]*api.App{}, Versions: map[string]map[string]*api.App{}, Groups: map[string]*Group{},
		Deployments: map[string]*deploy.Deployment{}, Tasks: map[string]*Task{}, Histories: map[string]*scheduler.History{},
		Queues: map[string]*Queue{}, Failures: map[string]*Failure{}, Ended: map[string]*Ending{}, Wanted: map[string]*hub.TaskEntry{},
		Jobs: map[string]*jobs.Job{}, Runs: map[string]*jobs.Run{},
		asks: map[string]*Ask{}, byApp: map[string]map[string]*Task{}, versions: map[string]uint64{},
	}
}

// TasksOf an app, sorted by id.
func (v *View) TasksOf(app string) []*Task {
	all := v.byApp[app]
	list := make([]*Task, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id])
	}
	return list
}

// Locks are the running deployments that change an app, sorted by id.
func (v *View) Locks(app string) []string {
	var ids []string
	for id, d := range v.Deployments {
		if slices.Contains(d.Apps(), app) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// VersionsOf an app, the newest first.
func (v *View) VersionsOf(app string) []string {
	list := slices.Sorted(maps.Keys(v.Versions[app]))
	slices.Reverse(list)
	return list
}

// Launched is the app as a task of it was launched: of the versions that need
// the same tasks the newest, which may have other labels. nil when it is not
// known any more.
func (v *View) Launched(t *Task) *api.App {
	if a := v.Apps[t.App]; a != nil && scheduler.Version(a) == t.Version {
		return a
	}
	var found *api.App
	for _, a := range v.Versions[t.App] {
		if scheduler.Version(a) == t.Version && (found == nil || a.Version > found.Version) {
			found = a
		}
	}
	return found
}

// Tree is the group of the id with all that is in it, as it is declared: apps
// and groups sorted by id. Only apps that keep says yes to are in it; nil: all.
func (v *View) Tree(id string, keep func(*api.App) bool) deploy.Group {
	return Tree(id, v.Apps, v.Groups, keep)
}

// Known tells whether there is a group of this id: the root, one that was
// written, or one that has something in it.
func (v *View) Known(group string) bool {
	if group == "/" || v.Groups[group] != nil {
		return true
	}
	for id := range v.Apps {
		if strings.HasPrefix(id, group+"/") {
			return true
		}
	}
	for id := range v.Groups {
		if strings.HasPrefix(id, group+"/") {
			return true
		}
	}
	return false
}

// Parent is the id of the group that an app or a group is in.
func Parent(id string) string {
	if at := strings.LastIndexByte(id, '/'); at > 0 {
		return id[:at]
	}
	return "/"
}

// Tree puts apps and groups, by their ids, into the group of the id.
func Tree(id string, apps map[string]*api.App, groups map[string]*Group, keep func(*api.App) bool) deploy.Group {
	nodes := map[string]*tree{}
	var node func(id string) *tree
	node = func(id string) *tree {
		n := nodes[id]
		if n == nil {
			n = &tree{id: id, children: map[string]bool{}}
			nodes[id] = n
			if id != "/" {
				node(Parent(id)).children[id] = true
			}
		}
		return n
	}
	node("/")
	for name, g := range groups {
		if name != "/" || g.ID == "/" {
			node(name).group = g
		}
	}
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		if keep == nil || keep(apps[name]) {
			n := node(Parent(name))
			n.apps = append(n.apps, *apps[name])
		}
	}
	return node(id).build(nodes)
}

type tree struct {
	id       string
	group    *Group
	apps     []api.App
	children map[string]bool
}

func (t *tree) build(nodes map[string]*tree) deploy.Group {
	g := deploy.Group{ID: t.id, Apps: t.apps, Groups: []deploy.Group{}, Dependencies: []string{}}
	if g.Apps == nil {
		g.Apps = []api.App{}
	}
	if t.group != nil {
		g.Version = t.group.Version
		g.Dependencies = append(g.Dependencies, t.group.Dependencies...)
	}
	for _, a := range t.apps {
		g.Version = max(g.Version, a.Version)
	}
	for _, id := range slices.Sorted(maps.Keys(t.children)) {
		child := nodes[id].build(nodes)
		g.Groups = append(g.Groups, child)
		g.Version = max(g.Version, child.Version)
	}
	return g
}
