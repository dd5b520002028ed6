package marathon

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
)

// filter are the apps that a query asks for.
func (q *request) filter() (func(*api.App) bool, error) {
	query := q.r.URL.Query()
	var labels selector
	if text := query.Get("label"); text != "" {
		var err error
		if labels, err = parseSelector(text); err != nil {
			return nil, err
		}
	}
	id, cmd := query.Get("id"), query.Get("cmd")
	return func(a *api.App) bool {
		return strings.Contains(a.ID, id) && strings.Contains(a.Cmd, cmd) && labels.matches(a.Labels)
	}, nil
}

func (q *request) listApps() error {
	keep, err := q.filter()
	if err != nil {
		return err
	}
	e := embedded(q.r.URL.Query()["embed"], embeds{counts: true, deployments: true})
	list := []raw{}
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Apps)) {
			if !keep(v.Apps[id]) {
				continue
			}
			var shape raw
			if shape, err = shapeApp(v, v.Apps[id], e); err != nil {
				return
			}
			list = append(list, shape)
		}
	})
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, map[string]any{"apps": list})
	return nil
}

func (q *request) showApp(id string) error {
	if below, ok := strings.CutSuffix(id, "/*"); ok {
		return q.appsBelow(below)
	}
	e := embedded(q.r.URL.Query()["embed"], embeds{tasks: true, counts: true, deployments: true, failure: true, readiness: true})
	shape, err := q.shape(id, e)
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, map[string]any{"app": shape})
	return nil
}

func (q *request) shape(id string, e embeds) (shape raw, err error) {
	q.o.Catalog.Read(func(v *apps.View) {
		if a := v.Apps[id]; a == nil {
			err = noApp(id)
		} else {
			shape, err = shapeApp(v, a, e)
			if warnings := apps.Warnings(a); err == nil && len(warnings) > 0 {
				set(shape, "warnings", warnings)
			}
		}
	})
	return shape, err
}

// appsBelow are the apps of a group and those below it.
func (q *request) appsBelow(group string) error {
	e := embedded(q.r.URL.Query()["embed"], embeds{counts: true, deployments: true})
	list := []raw{}
	var err error
	q.o.Catalog.Read(func(v *apps.View) {
		for _, id := range slices.Sorted(maps.Keys(v.Apps)) {
			if !strings.HasPrefix(id, group+"/") {
				continue
			}
			var shape raw
			if shape, err = shapeApp(v, v.Apps[id], e); err != nil {
				return
			}
			list = append(list, shape)
		}
	})
	if err != nil {
		return err
	}
	send(q.w, http.StatusOK, map[string]any{"*": list})
	return nil
}

func (q *request) createApp() error {
	sent, err := body[raw](q.r)
	if err != nil {
		return err
	}
	a, err := decodeApp(sent, "/", "")
	if err != nil {
		return err
	}
	if details := q.checkNetworks(nil, "", a); details != nil {
		return invalid(details)
	}
	out, err := q.change(func(v *apps.View) (*wish, error) {
		if v.Apps[a.ID] != nil {
			return nil, refuse(http.StatusConflict, "An app with id [%s] already exists.", a.ID)
		}
		if v.Known(a.ID) {
			return nil, refuse(http.StatusConflict, "A group with id [%s] already exists.", a.ID)
		}
		if v.Apps[apps.Parent(a.ID)] != nil {
			return nil, refuse(http.StatusConflict, "An app with id [%s] already exists.", apps.Parent(a.ID))
		}
		return &wish{apps: map[string]*api.App{a.ID: a}}, nil
	}, q.flag("dryRun", false))
	if err != nil {
		return err
	}
	shape := raw{}
	q.o.Catalog.Read(func(v *apps.View) {
		shape, err = shapeApp(v, a, embeds{tasks: true, counts: true, deployments: true})
	})
	if err != nil {
		return err
	}
	set(shape, "deployments", []Ref{{out.deployment.ID}})
	if warnings := apps.Warnings(a); len(warnings) > 0 {
		set(shape, "warnings", warnings)
	}
	q.w.Header().Set("Location", q.mount()+"/v2/apps"+a.ID)
	q.w.Header().Set("Marathon-Deployment-Id", out.deployment.ID)
	send(q.w, http.StatusCreated, shape)
	return nil
}

// mount is the part of the address before /v2.
func (q *request) mount() string { return strings.TrimSuffix(q.r.URL.Path, q.path) }

// updated is the app that an update makes of an old one, or makes anew.
func (q *request) updated(v *apps.View, id string, update raw, partial bool) (*api.App, error) {
	old := v.Apps[id]
	if text, ok := update["version"]; ok && len(update) == 1 {
		var version string
		if err := json.Unmarshal(text, &version); err != nil {
			return nil, badJSON(err)
		}
		if old == nil {
			return nil, noApp(id)
		}
		was := v.Versions[id][version]
		if was == nil {
			return nil, invalid([]Detail{{"/version", []string{"the app has no version " + version}}})
		}
		again := *was
		return &again, nil
	}
	if old == nil && v.Known(id) {
		return nil, refuse(http.StatusConflict, "A group with id [%s] already exists.", id)
	}
	sent := update
	if old != nil && partial {
		var err error
		plain, details := modern(maps.Clone(update))
		if details != nil {
			return nil, invalid(details)
		}
		if sent, err = overlay(old, plain); err != nil {
			return nil, err
		}
		for key, value := range update { // named even where the old one has not
			if _, ok := unsupported[key]; ok {
				sent[key] = value
			}
		}
	}
	a, err := decodeApp(sent, "/", id)
	if err != nil {
		return nil, err
	}
	if details := q.checkNetworks(nil, "", a); details != nil {
		return nil, invalid(details)
	}
	return a, nil
}

func (q *request) putApp(id string, partial bool) error {
	update, err := body[raw](q.r)
	if err != nil {
		return err
	}
	create := false
	out, err := q.change(func(v *apps.View) (*wish, error) {
		create = v.Apps[id] == nil
		if create && q.r.Method == http.MethodPatch {
			return nil, noApp(id)
		}
		a, err := q.updated(v, id, update, partial)
		if err != nil {
			return nil, err
		}
		return &wish{apps: map[string]*api.App{id: a}}, nil
	}, q.flag("dryRun", false))
	if err != nil {
		return err
	}
	status := http.StatusOK
	if create {
		status = http.StatusCreated
		q.w.Header().Set("Location", q.mount()+"/v2/apps"+id)
	}
	return q.told(status, out)
}

// putApps changes or makes many apps in one deployment.
func (q *request) putApps() error {
	updates, err := body[[]raw](q.r)
	if err != nil {
		return err
	}
	partial := q.r.Method == http.MethodPatch || q.flag("partialUpdate", true)
	out, err := q.change(func(v *apps.View) (*wish, error) {
		w := &wish{apps: map[string]*api.App{}}
		var details []Detail
		for i, update := range updates {
			var id string
			if err := json.Unmarshal(update["id"], &id); err != nil || id == "" {
				details = add(details, "("+itoa(i)+")/id", "is missing")
				continue
			}
			id = absolute("/", id)
			if w.apps[id] != nil {
				details = add(details, "("+itoa(i)+")/id", "is there twice")
				continue
			}
			a, err := q.updated(v, id, update, partial)
			if bad, ok := err.(*Refusal); ok && bad.Status == http.StatusUnprocessableEntity {
				for _, d := range bad.Details {
					details = append(details, Detail{"(" + itoa(i) + ")" + d.Path, d.Errors})
				}
				continue
			} else if err != nil {
				return nil, err
			}
			w.apps[id] = a
		}
		if len(details) > 0 {
			return nil, invalid(details)
		}
		return w, nil
	}, q.flag("dryRun", false))
	if err != nil {
		return err
	}
	return q.told(http.StatusOK, out)
}

func (q *request) deleteApp(id string) error {
	out, err := q.change(func(v *apps.View) (*wish, error) {
		if v.Apps[id] == nil {
			return nil, noApp(id)
		}
		return &wish{apps: map[string]*api.App{id: nil}}, nil
	}, false)
	if err != nil {
		return err
	}
	return q.told(http.StatusOK, out)
}

func (q *request) restartApp(id string) error {
	out, err := q.change(func(v *apps.View) (*wish, error) {
		if v.Apps[id] == nil {
			return nil, noApp(id)
		}
		again := *v.Apps[id]
		return &wish{apps: map[string]*api.App{id: &again}, restart: map[string]bool{id: true}}, nil
	}, false)
	if err != nil {
		return err
	}
	return q.told(http.StatusOK, out)
}

func (q *request) listVersions(id string) error {
	var list []string
	q.o.Catalog.Read(func(v *apps.View) { list = v.VersionsOf(id) })
	if len(list) == 0 {
		return noApp(id)
	}
	send(q.w, http.StatusOK, map[string]any{"versions": list})
	return nil
}

func (q *request) showVersion(id, version string) (err error) {
	var shape raw
	q.o.Catalog.Read(func(v *apps.View) {
		if a := v.Versions[id][version]; a == nil {
			err = refuse(http.StatusNotFound, "App '%s' has no version '%s'", id, version)
		} else {
			shape, err = shapeApp(v, a, embeds{})
		}
	})
	if err == nil {
		send(q.w, http.StatusOK, shape)
	}
	return err
}
