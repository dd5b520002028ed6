package deploy

import (
	"maps"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/scheduler"
)

// Steady are the targets of an app that no deployment changes. What a stopped
// deployment has left of other versions counts and stays; only what ends of it
// is replaced by the app as it is. Instances of other apps are not looked at.
func Steady(a *api.App, instances []scheduler.Instance) []scheduler.Target {
	var mine []*scheduler.Instance
	for i := range instances {
		if instances[i].App == a.ID {
			mine = append(mine, &instances[i])
		}
	}
	return steady(a, mine)
}

func steady(a *api.App, instances []*scheduler.Instance) []scheduler.Target {
	now := scheduler.Target{App: *a, Count: int(a.Instances)}
	old := map[string]*aliveServing{}
	left, fresh, starting, serving := 0, 0, 0, 0
	for _, i := range instances {
		if i.State.Ended() || i.Stopping() {
			continue
		}
		if i.Version == scheduler.Version(a) {
			fresh++
			if !i.Serving() {
				starting++
			}
			continue
		}
		of := old[i.Version]
		if of == nil {
			of = &aliveServing{}
			old[i.Version] = of
		}
		left++
		of.alive++
		if i.Serving() {
			of.serving++
			serving++
		}
	}
	if left == 0 || a.Instances == api.EveryNode {
		return []scheduler.Target{now}
	}
	// What is too much ends: first those that do not serve, the old ones of them
	// before the new, then old ones that do.
	surplus := max(left+fresh-now.Count, 0)
	end := min(surplus, left-serving)
	end += min(max(surplus-end-starting, 0), serving)
	now.Count = max(now.Count-left+end, 0)
	return append([]scheduler.Target{now}, kept(a, old, end, false)...)
}

// kept are the targets of old versions, of whose instances so many shall end:
// those that do not serve first. Of their apps only the versions are known; that
// is enough to end them by.
func kept(base *api.App, old map[string]*aliveServing, end int, held bool) []scheduler.Target {
	versions := slices.Sorted(maps.Keys(old))
	ends := map[string]int{}
	for _, v := range versions {
		n := min(old[v].alive-old[v].serving, end)
		ends[v] += n
		end -= n
	}
	for _, v := range versions {
		n := min(old[v].serving, end)
		ends[v] += n
		end -= n
	}
	var all []scheduler.Target
	for _, v := range versions {
		a := *base
		if scheduler.Version(base) != v {
			a.Version, a.VersionInfo = v, nil
		}
		all = append(all, scheduler.Target{App: a, Count: old[v].alive - ends[v], Keep: true, Held: held})
	}
	return all
}
