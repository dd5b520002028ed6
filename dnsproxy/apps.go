package dnsproxy

import (
	"cmp"
	"slices"
	"strings"
)

// spreadApps adds the tasks of apps that get or lose a plain name when tasks come
// and go.
func (n *names) spreadApps(e *edits, touched map[string]bool) {
	came, went := n.appsAfter(e)
	changed := map[string]bool{}
	for _, a := range slices.Concat(came, went) {
		for _, f := range a.forms {
			changed[f.key()] = true
		}
	}
	for key := range changed {
		list := n.wanted[key]
		after := slices.DeleteFunc(slices.Clone(list), func(a *app) bool { return slices.Contains(went, a) })
		for _, a := range came {
			after = insertApp(after, a, key)
		}
		if len(list) > 0 && len(after) > 0 && list[0] == after[0] {
			continue
		}
		for _, first := range slices.Concat(list[:min(1, len(list))], after[:min(1, len(after))]) {
			for id := range first.tasks {
				touched[id] = true
			}
		}
	}
}

// appsAfter gives the apps that the edits bring and end.
func (n *names) appsAfter(e *edits) (came, went []*app) {
	more, fresh := map[string]int{}, map[string]*app{}
	for id, t := range e.tasks {
		if old, ok := n.tasks[id]; ok {
			more[old.app.key]--
		}
		if t == nil {
			continue
		}
		key := appKey(t)
		more[key]++
		if n.apps[key] == nil && fresh[key] == nil {
			fresh[key] = newApp(t)
			came = append(came, fresh[key])
		}
	}
	for key, count := range more {
		if a := n.apps[key]; a != nil && len(a.tasks)+count == 0 {
			went = append(went, a)
		}
	}
	return came, went
}

// insertApp puts an app among those that want a name: one whose own name is the
// name itself before one of which something was lost, then by key, so that all
// nodes agree whatever came first.
func insertApp(list []*app, a *app, key string) []*app {
	at, ok := slices.BinarySearchFunc(list, a, func(x, y *app) int {
		return cmp.Or(cmp.Compare(x.inexact(key), y.inexact(key)), strings.Compare(x.key, y.key))
	})
	if ok || !slices.ContainsFunc(a.forms, func(f form) bool { return f.key() == key }) {
		return list
	}
	return slices.Insert(list, at, a)
}

func (a *app) inexact(key string) int {
	for _, f := range a.forms {
		if f.key() == key && f.exact {
			return 0
		}
	}
	return 1
}

// enterTasks makes the edited tasks the state of names.
func (n *names) enterTasks(e *edits, touched map[string]bool) {
	for id, t := range e.tasks {
		if old, ok := n.tasks[id]; ok {
			delete(old.app.tasks, id)
			delete(n.tasks, id)
			delete(n.faults, id)
			if len(old.app.tasks) == 0 && (t == nil || appKey(t) != old.app.key) {
				n.dropApp(old.app)
			}
		}
		if t == nil {
			continue
		}
		key := appKey(t)
		a := n.apps[key]
		if a == nil {
			a = newApp(t)
			n.apps[key] = a
			for _, f := range a.forms {
				n.wanted[f.key()] = insertApp(n.wanted[f.key()], a, f.key())
			}
		}
		a.tasks[id] = t
		n.tasks[id] = taskState{t, a}
	}
	for id := range touched {
		if t, ok := n.tasks[id]; ok {
			for i, f := range t.app.forms {
				t.app.plain[i] = n.wanted[f.key()][0] == t.app
			}
		}
	}
}

func (n *names) dropApp(a *app) {
	delete(n.apps, a.key)
	for _, f := range a.forms {
		key := f.key()
		n.wanted[key] = slices.DeleteFunc(n.wanted[key], func(x *app) bool { return x == a })
		if len(n.wanted[key]) == 0 {
			delete(n.wanted, key)
		}
	}
}
