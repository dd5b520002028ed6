package marathon

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
)

func (q *request) listTasks() error {
	if wantsText(q.r) {
		return q.tasksAsText()
	}
	wanted := append(q.r.URL.Query()["status"], q.r.URL.Query()["status[]"]...)
	list := []task{}
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Tasks)) {
			if t := v.Tasks[id]; ofStatus(t, wanted) {
				list = append(list, shapeTask(v, t))
			}
		}
	})
	send(q.w, http.StatusOK, map[string]any{"tasks": list})
	return nil
}

func ofStatus(t *apps.Task, wanted []string) bool {
	if len(wanted) == 0 {
		return true
	}
	word := "running"
	if s := t.State(); s == api.TaskStaging || s == api.TaskStarting {
		word = "staging"
	}
	return slices.Contains(wanted, word)
}

func wantsText(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "text/plain") && !strings.Contains(accept, "application/json")
}

// tasksAsText is a line per app and service port: the app with _ for /, the
// service port, and host:port of each task that may be given traffic.
func (q *request) tasksAsText() error {
	var text strings.Builder
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Apps)) {
			name := strings.ReplaceAll(strings.Trim(id, "/"), "/", "_")
			ports := apps.ServicePorts(v.Apps[id])
			if len(ports) == 0 {
				line(&text, name, " ", v, id, -1)
			}
			for i, port := range ports {
				line(&text, name, itoa(port), v, id, i)
			}
		}
	})
	q.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := fmt.Fprint(q.w, text.String())
	return err
}

func line(text *strings.Builder, name, port string, v *apps.View, id string, index int) {
	fmt.Fprintf(text, "%s\t%s\t", name, port)
	for _, t := range v.TasksOf(id) {
		if !t.Healthy() {
			continue
		}
		ports := t.HostPorts()
		switch {
		case index < 0:
			fmt.Fprintf(text, "%s\t", t.Host)
		case index < len(ports):
			fmt.Fprintf(text, "%s:%d\t", t.Host, ports[index])
		}
	}
	text.WriteString("\n")
}

func (q *request) tasksOf(id string) (err error) {
	list := []task{}
	q.o.Catalog.Read(func(v *apps.View) {
		if group, ok := strings.CutSuffix(id, "/*"); ok {
			for _, name := range slices.Sorted(maps.Keys(v.Apps)) {
				if inGroup(name, group) {
					list = append(list, shapeTasks(v, v.TasksOf(name))...)
				}
			}
		} else if v.Apps[id] == nil {
			err = noApp(id)
		} else {
			list = shapeTasks(v, v.TasksOf(id))
		}
	})
	if err == nil {
		send(q.w, http.StatusOK, map[string]any{"tasks": list})
	}
	return err
}

// deleteTasksOf ends tasks of an app: one, those on a host, or all.
func (q *request) deleteTasksOf(id, one string) error {
	host := q.r.URL.Query().Get("host")
	return q.kill(func(v *apps.View) ([]*apps.Task, error) {
		if v.Apps[id] == nil {
			return nil, noApp(id)
		}
		var list []*apps.Task
		for _, t := range v.TasksOf(id) {
			if (one == "" || t.ID == one) && (host == "" || host == "*" || t.Host == host || t.Node == host) {
				list = append(list, t)
			}
		}
		if one != "" && len(list) == 0 {
			return nil, noTask(one)
		}
		return list, nil
	}, one != "")
}

func (q *request) deleteTasks() error {
	sent, err := body[struct {
		IDs []string `json:"ids"`
	}](q.r)
	if err != nil {
		return err
	}
	return q.kill(func(v *apps.View) ([]*apps.Task, error) {
		var list []*apps.Task
		for _, id := range sent.IDs {
			if t := v.Tasks[id]; t != nil {
				list = append(list, t)
			}
		}
		return list, nil
	}, false)
}

// kill ends tasks. With scale the apps have so many fewer instances after it,
// which is a deployment; else others start in their place.
func (q *request) kill(find func(*apps.View) ([]*apps.Task, error), one bool) error {
	scale, wipe := q.flag("scale", false), q.flag("wipe", false)
	if scale && wipe {
		return refuse(http.StatusBadRequest, "You cannot use scale and wipe at the same time.")
	}
	shapes := []task{}
	out, err := q.change(func(v *apps.View) (*wish, error) {
		list, err := find(v)
		if err != nil {
			return nil, err
		}
		w := &wish{apps: map[string]*api.App{}}
		shapes = shapeTasks(v, list)
		asks := map[string]*apps.Ask{}
		for _, t := range list {
			if asks[t.App] == nil {
				asks[t.App] = &apps.Ask{App: t.App, Wipe: wipe}
			}
			asks[t.App].Kill = append(asks[t.App].Kill, t.ID)
			if a := v.Apps[t.App]; scale && a != nil && a.Instances > 0 {
				if w.apps[t.App] == nil {
					fewer := *a
					w.apps[t.App] = &fewer
				}
				w.apps[t.App].Instances = max(w.apps[t.App].Instances-1, 0)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(asks)) {
			w.asks = append(w.asks, *asks[id])
		}
		return w, nil
	}, false)
	if err != nil {
		return err
	}
	switch {
	case scale:
		return q.told(http.StatusOK, out)
	case one && len(shapes) == 1:
		send(q.w, http.StatusOK, map[string]any{"task": shapes[0]})
	default:
		send(q.w, http.StatusOK, map[string]any{"tasks": shapes})
	}
	return nil
}

// ask the leader for something that is no change of an app.
func (q *request) ask(a apps.Ask) error {
	_, err := q.change(func(v *apps.View) (*wish, error) {
		if v.Apps[a.App] == nil {
			return nil, noApp(a.App)
		}
		return &wish{asks: []apps.Ask{a}}, nil
	}, false)
	if err == nil {
		q.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (q *request) resetDelay(app string) error { return q.ask(apps.Ask{App: app, NoDelay: true}) }
