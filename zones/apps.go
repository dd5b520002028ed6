package zones

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// appsOf are the apps that tasks are instances of. A task without an address of
// its own is at its node's. Instances of one app whose labels differ, as during
// an upgrade, are two apps of one id.
func appsOf(tasks []api.Task, nodes []api.Node) []App {
	if len(tasks) == 0 {
		return nil
	}
	addresses := map[string][]netip.Addr{}
	for _, n := range nodes {
		addresses[n.Name] = n.Addresses
	}
	byID := map[string][]*App{}
	for _, t := range tasks {
		if t.State.Ended() || t.App == "" {
			continue
		}
		i := slices.IndexFunc(byID[t.App], func(a *App) bool { return maps.Equal(a.Labels, t.Labels) })
		if i < 0 {
			i = len(byID[t.App])
			byID[t.App] = append(byID[t.App], &App{ID: t.App, Labels: t.Labels})
		}
		app, at := byID[t.App][i], t.Addresses
		if len(at) == 0 {
			at = addresses[t.Node]
		}
		for _, a := range at {
			app.Instances = append(app.Instances, Instance{Address: plain(a), Node: t.Node})
		}
	}
	var all []App
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		for _, app := range byID[id] {
			slices.SortFunc(app.Instances, func(a, b Instance) int {
				return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Node, b.Node))
			})
			all = append(all, *app)
		}
	}
	return all
}
