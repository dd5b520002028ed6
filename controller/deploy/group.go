package deploy

import (
	"maps"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// member is an app with what it depends on: apps, those of its groups' and those
// in groups that are named included.
type member struct {
	definition api.App
	requires   []string
}

func (m *member) app() *api.App {
	if m == nil {
		return nil
	}
	return &m.definition
}

// flat has all apps of a group by their ids.
func (g Group) flat() map[string]*member {
	all := map[string]*member{}
	g.collect(all, nil)
	for id, m := range all {
		m.requires = expand(m.requires, all, id)
	}
	return all
}

func (g Group) collect(all map[string]*member, inherited []string) {
	inherited = slices.Concat(inherited, g.Dependencies)
	for _, a := range g.Apps {
		all[a.ID] = &member{a, slices.Concat(inherited, a.Dependencies)}
	}
	for _, sub := range g.Groups {
		sub.collect(all, inherited)
	}
}

// expand turns names of groups into the apps below them. What is not there is
// waited for by nobody.
func expand(names []string, all map[string]*member, self string) []string {
	if len(names) == 0 {
		return nil
	}
	var ids []string
	for id := range all {
		if id != self && slices.ContainsFunc(names, func(n string) bool { return n == id || strings.HasPrefix(id, strings.TrimSuffix(n, "/")+"/") }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// closure is all that an app depends on, by way of others too.
func (m *member) closure(all map[string]*member, seen []string) []string {
	if m == nil {
		return seen
	}
	for _, id := range m.requires {
		if !slices.Contains(seen, id) {
			seen = all[id].closure(all, append(seen, id))
		}
	}
	return seen
}

func union(a, b map[string]*member) []string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return slices.Sorted(maps.Keys(both))
}

// circleIn is a circle of dependencies, its first app at its end again; nil when
// there is none.
func circleIn(all map[string]*member) []string {
	done := map[string]bool{}
	var path []string
	var visit func(id string) []string
	visit = func(id string) []string {
		if at := slices.Index(path, id); at >= 0 {
			return append(slices.Clone(path[at:]), id)
		}
		if done[id] {
			return nil
		}
		path = append(path, id)
		for _, r := range all[id].requires {
			if circle := visit(r); circle != nil {
				return circle
			}
		}
		path = path[:len(path)-1]
		done[id] = true
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if circle := visit(id); circle != nil {
			return circle
		}
	}
	return nil
}
