package zones

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
)

// follow takes the plan's groups from one state to the next.
func (b *plan) follow(old, now State, changed []string) {
	if changed == nil || !b.followNodes(old.Nodes, now.Nodes, changed) {
		b.nodeMembers = followList(b.nodeMembers, old.Nodes, now.Nodes, sameNode, b.node, replace)
	}
	same := sameService
	if !sameMap(old.VIPs, now.VIPs) {
		same = func(x, y *api.Service) bool { return false }
	}
	make := func(s *api.Service) serviceMember { return b.service(*s, now) }
	b.serviceParts = followList(b.serviceParts, old.Services, now.Services, same, make, func(x, y serviceMember) {
		replace(x.backends, y.backends)
		replace(x.local, y.local)
		replace(x.vips, y.vips)
		for _, key := range []string{x.key, y.key} {
			if e := b.services[key]; e != nil {
				e.stale = true
			}
		}
	})
	b.appParts = followList(b.appParts, old.Apps, now.Apps, sameApp, b.app, func(x, y [2]*member) {
		replace(x[0], y[0])
		replace(x[1], y[1])
	})
	b.followEndpoints(now)
}

// followList makes the members of a list that has changed, and tells of each
// that is another one: in place, gone, or new. In a list of the same length only
// what differs is looked at; in another one, what is between the first and the
// last difference.
func followList[T, M any](members []M, old, now []T, same func(a, b *T) bool, make func(*T) M, swap func(old, now M)) []M {
	if len(old) == len(now) && (len(now) == 0 || &old[0] == &now[0]) {
		return members
	}
	if len(old) == len(now) {
		for i := range now {
			if !same(&old[i], &now[i]) {
				fresh := make(&now[i])
				swap(members[i], fresh)
				members[i] = fresh
			}
		}
		return members
	}
	head, tail := common(old, now, same)
	var none M
	var fresh []M
	for i := head; i < len(now)-tail; i++ {
		m := make(&now[i])
		swap(none, m)
		fresh = append(fresh, m)
	}
	for _, m := range members[head : len(members)-tail] {
		swap(m, none)
	}
	return slices.Concat(members[:head], fresh, members[len(members)-tail:])
}

// followNodes is followList for changes that are known by name. It changes
// nothing and gives false when the lists do not agree with them.
func (b *plan) followNodes(old, now []api.Node, changed []string) bool {
	if len(b.nodeMembers) != len(old) {
		return false
	}
	changed = slices.Compact(slices.Sorted(slices.Values(changed)))
	find := func(nodes []api.Node, name string) (int, bool) {
		return slices.BinarySearchFunc(nodes, name, func(n api.Node, name string) int { return strings.Compare(n.Name, name) })
	}
	type edit struct {
		at      int // in what the edits before have made
		was, is bool
	}
	var edits []edit
	shift := 0
	for _, name := range changed {
		i, was := find(old, name)
		j, is := find(now, name)
		if i+shift != j {
			return false
		}
		edits = append(edits, edit{j, was, is})
		switch {
		case was && !is:
			shift--
		case is && !was:
			shift++
		}
	}
	if len(old)+shift != len(now) {
		return false
	}
	for _, e := range edits {
		switch {
		case e.was && e.is:
			m := b.node(&now[e.at])
			replace(b.nodeMembers[e.at], m)
			b.nodeMembers[e.at] = m
		case e.was:
			replace(b.nodeMembers[e.at], nil)
			b.nodeMembers = slices.Delete(b.nodeMembers, e.at, e.at+1)
		case e.is:
			m := b.node(&now[e.at])
			replace(nil, m)
			b.nodeMembers = slices.Insert(b.nodeMembers, e.at, m)
		}
	}
	return true
}

// The comparisons look at the whole values, but take what shares its memory for
// equal first: snapshots share what has not changed.

func sameNode(a, b *api.Node) bool {
	return a.Name == b.Name && a.Role == b.Role && a.Zone == b.Zone && slicesSame(a.Addresses, b.Addresses) && sameMap(a.Attributes, b.Attributes)
}

func sameService(a, b *api.Service) bool {
	return a.Name == b.Name && a.Namespace == b.Namespace && a.Protocol == b.Protocol &&
		slicesSame(a.VIPs, b.VIPs) && sameBackends(a.Backends, b.Backends)
}

func sameBackends(a, b []api.Backend) bool {
	return sameMemory(a, b) || slices.EqualFunc(a, b, func(x, y api.Backend) bool { return x.Address == y.Address && x.Node == y.Node })
}

func sameApp(a, b *App) bool {
	return a.ID == b.ID && sameMap(a.Labels, b.Labels) && slicesSame(a.Instances, b.Instances)
}

func slicesSame[T comparable](a, b []T) bool { return sameMemory(a, b) || slices.Equal(a, b) }

func sameMemory[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func sameMap[K, V comparable](a, b map[K]V) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() || maps.Equal(a, b))
}
