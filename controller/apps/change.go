package apps

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/deploy"
	"github.com/weirproject/weir/controller/scheduler"
)

// NeedsTasks tells whether tasks of the old definition are not what the new one
// asks for, so that they must be replaced. Labels, of the app and of its ports,
// and how the app is run are no reason: they are taken over by running tasks.
func NeedsTasks(old, now *api.App) bool { return !deploy.SameTasks(clone(old), clone(now)) }

// clone is a deep copy.
func clone(a *api.App) *api.App {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err) // an api.App always marshals
	}
	c := new(api.App)
	if err := json.Unmarshal(text, c); err != nil {
		panic(err)
	}
	return c
}

// Same tells whether two definitions differ in nothing but their version.
func Same(old, now *api.App) bool {
	a, b := clone(old), clone(now)
	a.Version, a.VersionInfo, b.Version, b.VersionInfo = "", nil, "", nil
	return reflect.DeepEqual(a, b)
}

// Stamped gives the definition its version: now, or right after the old one. It
// says when the app was last scaled and when it last changed so that it needs
// new tasks, which with restart is now.
func Stamped(old, a *api.App, now time.Time, restart bool) {
	a.Version = Stamp(now)
	if old == nil {
		a.VersionInfo = &api.AppVersionInfo{LastScalingAt: a.Version, LastConfigChangeAt: a.Version}
		return
	}
	if last, err := time.Parse(time.RFC3339, old.Version); err == nil && a.Version <= old.Version {
		a.Version = Stamp(last.Add(time.Millisecond))
	}
	info := api.AppVersionInfo{LastScalingAt: old.Version, LastConfigChangeAt: old.Version}
	if old.VersionInfo != nil {
		info = *old.VersionInfo
	}
	if restart || NeedsTasks(old, a) {
		info.LastScalingAt, info.LastConfigChangeAt = a.Version, a.Version
	} else if old.Instances != a.Instances {
		info.LastScalingAt = a.Version
	}
	a.VersionInfo = &info
}

// The range that service ports are allotted from.
const (
	firstServicePort = 10000
	lastServicePort  = 20000
)

// servicePorts are where an app's service ports are.
func servicePorts(a *api.App) []*int {
	var list []*int
	if a.HostNetwork() {
		for i := range a.PortDefinitions {
			list = append(list, &a.PortDefinitions[i].Port)
		}
	} else if a.Container != nil {
		for i := range a.Container.PortMappings {
			list = append(list, &a.Container.PortMappings[i].ServicePort)
		}
	}
	return list
}

// ServicePorts of an app.
func ServicePorts(a *api.App) []int {
	list := []int{}
	for _, p := range servicePorts(a) {
		list = append(list, *p)
	}
	return list
}

// Allot gives the ports of apps that have none a service port: that of the app as
// it was, or one that no other app has. With requirePorts a port is a node's, and
// stays as it is.
func Allot(all map[string]*api.App, changed map[string]*api.App) {
	taken := map[int]bool{}
	for _, set := range []map[string]*api.App{all, changed} {
		for _, a := range set {
			if a == nil {
				continue
			}
			for _, p := range servicePorts(a) {
				taken[*p] = true
			}
		}
	}
	next := firstServicePort
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		a := changed[id]
		if a == nil || a.HostNetwork() && a.RequirePorts {
			continue
		}
		var before []*int
		if old := all[id]; old != nil {
			before = servicePorts(old)
		}
		for i, p := range servicePorts(a) {
			if *p != 0 {
				continue
			}
			if i < len(before) && *before[i] != 0 {
				*p = *before[i]
				continue
			}
			for next <= lastServicePort && taken[next] {
				next++
			}
			if next <= lastServicePort {
				*p, taken[next] = next, true
			}
		}
	}
}

// TakeBack makes a deployment that takes another back one of definitions with
// new versions, and returns these: the apps as they shall be, nil for those that
// shall not. Their tasks are the old ones, where these are still there.
func TakeBack(v *View, back *deploy.Deployment, now time.Time) map[string]*api.App {
	all := map[string]*api.App{}
	for i := range back.Changes {
		c := &back.Changes[i]
		if c.To == nil {
			if v.Apps[c.App] != nil {
				all[c.App] = nil
			}
			continue
		}
		again := clone(c.To)
		again.Version = Stamp(now)
		if old := v.Apps[c.App]; old != nil && again.Version <= old.Version {
			Stamped(old, again, now, false)
			again.VersionInfo = nil
		}
		info := api.AppVersionInfo{LastScalingAt: again.Version, LastConfigChangeAt: scheduler.Version(c.To)}
		again.VersionInfo = &info
		c.To, all[c.App] = again, again
	}
	return all
}
