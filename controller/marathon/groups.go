package marathon

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/deploy"
)

// groupUpdate is a group as it is sent.
type groupUpdate struct {
	ID           string            `json:"id"`
	Apps         []raw             `json:"apps"`
	Pods         []json.RawMessage `json:"pods"`
	Groups       []groupUpdate     `json:"groups"`
	Dependencies []string          `json:"dependencies"`
	ScaleBy      *float64          `json:"scaleBy"`
	Version      string            `json:"version"`
	EnforceRole  bool              `json:"enforceRole"`
}

func (q *request) routeGroups(id string) error {
	group := "/" + id
	if rest, ok := strings.CutSuffix(group, "/versions"); ok {
		group = "/" + strings.Trim(rest, "/")
		return q.do("groups"+group, methods{"GET": func() error { return q.listGroupVersions(group) }})
	}
	if at, version, ok := strings.Cut(group, "/versions/"); ok {
		group = "/" + strings.Trim(at, "/")
		return q.do("groups"+group, methods{"GET": func() error { return q.showGroupVersion(group, version) }})
	}
	return q.do("groups"+group, methods{
		"GET": func() error { return q.showGroup(group) }, "POST": func() error { return q.createGroup(group) },
		"PUT": func() error { return q.putGroup(group) }, "PATCH": func() error { return q.putGroup(group) },
		"DELETE": func() error { return q.deleteGroup(group) },
	})
}

// shapeGroup is a group as Marathon shows it.
func shapeGroup(v *apps.View, g deploy.Group, e embeds, withApps, withGroups bool) (raw, error) {
	out := raw{}
	set(out, "id", g.ID)
	set(out, "dependencies", g.Dependencies)
	set(out, "version", g.Version)
	set(out, "enforceRole", false)
	set(out, "pods", []struct{}{})
	list, groups := []raw{}, []raw{}
	for i := range g.Apps {
		if !withApps {
			break
		}
		shape, err := shapeApp(v, &g.Apps[i], e)
		if err != nil {
			return nil, err
		}
		list = append(list, shape)
	}
	for _, inner := range g.Groups {
		if !withGroups {
			break
		}
		shape, err := shapeGroup(v, inner, e, withApps, true)
		if err != nil {
			return nil, err
		}
		groups = append(groups, shape)
	}
	set(out, "apps", list)
	set(out, "groups", groups)
	return out, nil
}

func (q *request) showGroup(id string) (err error) {
	values := q.r.URL.Query()["embed"]
	withApps, withGroups := len(values) == 0, len(values) == 0
	for _, one := range values {
		withApps = withApps || strings.HasPrefix(one, "group.apps")
		withGroups = withGroups || one == "group.groups"
	}
	var shape raw
	q.o.Catalog.Read(func(v *apps.View) {
		if !v.Known(id) {
			err = noGroup(id)
			return
		}
		shape, err = shapeGroup(v, v.Tree(id, nil), embedded(values, embeds{}), withApps, withGroups)
	})
	if err == nil {
		send(q.w, http.StatusOK, shape)
	}
	return err
}

// groupVersions are the times of all changes in a group, the newest first.
func groupVersions(v *apps.View, id string) []string {
	set := map[string]bool{}
	for app, versions := range v.Versions {
		if inGroup(app, id) {
			for version := range versions {
				set[version] = true
			}
		}
	}
	for name, g := range v.Groups {
		if name == id || inGroup(name, id) {
			set[g.Version] = true
		}
	}
	list := slices.Sorted(maps.Keys(set))
	slices.Reverse(list)
	return list
}

func inGroup(id, group string) bool {
	return group == "/" || strings.HasPrefix(id, group+"/")
}

func (q *request) listGroupVersions(id string) (err error) {
	var list []string
	q.o.Catalog.Read(func(v *apps.View) {
		if !v.Known(id) {
			err = noGroup(id)
		}
		list = groupVersions(v, id)
	})
	if err == nil {
		send(q.w, http.StatusOK, list)
	}
	return err
}

// asOf are the apps of a group as they were at a version: of each that is there
// now the newest that is not newer.
func asOf(v *apps.View, group, version string) map[string]*api.App {
	was := map[string]*api.App{}
	for id, versions := range v.Versions {
		if !inGroup(id, group) || v.Apps[id] == nil {
			continue
		}
		newest := ""
		for one := range versions {
			if one <= version && one > newest {
				newest = one
			}
		}
		if newest != "" {
			again := *versions[newest]
			was[id] = &again
		}
	}
	return was
}

func (q *request) showGroupVersion(id, version string) (err error) {
	var shape raw
	q.o.Catalog.Read(func(v *apps.View) {
		if !slices.Contains(groupVersions(v, id), version) {
			err = refuse(http.StatusNotFound, "Group '%s' has no version '%s'", id, version)
			return
		}
		g := apps.Tree(id, asOf(v, id, version), nil, nil)
		g.Version = version
		shape, err = shapeGroup(v, g, embeds{}, true, true)
	})
	if err == nil {
		send(q.w, http.StatusOK, shape)
	}
	return err
}

// createGroup makes a group that is not there.
func (q *request) createGroup(base string) error {
	update, err := body[groupUpdate](q.r)
	if err != nil {
		return err
	}
	id := base
	if update.ID != "" {
		id = absolute(base, update.ID)
	}
	out, err := q.change(func(v *apps.View) (*wish, error) {
		if id == "/" || v.Known(id) {
			return nil, refuse(http.StatusConflict, "Group %s is already created. Use PUT to change this group.", id)
		}
		return q.group(v, id, update)
	}, q.flag("dryRun", false))
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", q.mount()+"/v2/groups"+id)
	return q.told(http.StatusCreated, out)
}

func (q *request) putGroup(base string) error {
	update, err := body[groupUpdate](q.r)
	if err != nil {
		return err
	}
	id, dry := base, q.flag("dryRun", false)
	if update.ID != "" {
		id = absolute(base, update.ID)
		if base != "/" && !strings.HasPrefix(update.ID, "/") {
			id = base // the id within its parent
		}
	}
	out, err := q.change(func(v *apps.View) (*wish, error) { return q.group(v, id, update) }, dry)
	if err != nil {
		return err
	}
	if dry {
		plan := apps.Plan(&out.deployment, false)
		send(q.w, http.StatusOK, map[string]any{"steps": plan["steps"]})
		return nil
	}
	return q.told(http.StatusOK, out)
}

// group is what an update makes of a group: the whole of it, all at other
// numbers, or as it was.
func (q *request) group(v *apps.View, id string, u groupUpdate) (*wish, error) {
	w := &wish{apps: map[string]*api.App{}, groups: map[string]*apps.Group{}}
	switch {
	case u.ScaleBy != nil:
		if !v.Known(id) {
			return nil, noGroup(id)
		}
		for name, a := range v.Apps {
			if inGroup(name, id) && a.Instances != api.EveryNode {
				scaled := *a
				scaled.Instances = api.Instances(float64(a.Instances)*max(*u.ScaleBy, 0) + 0.999999)
				w.apps[name] = &scaled
			}
		}
	case u.Version != "" && u.Apps == nil && u.Groups == nil:
		if !slices.Contains(groupVersions(v, id), u.Version) {
			return nil, invalid([]Detail{{"/version", []string{"the group has no version " + u.Version}}})
		}
		w.apps = asOf(v, id, u.Version)
		for name := range v.Apps {
			if inGroup(name, id) && w.apps[name] == nil {
				w.apps[name] = nil // it was not there
			}
		}
	default:
		var details []Detail
		// What an update does not speak of stays; apps and groups that it lists are
		// all there are.
		if err := q.groupWhole(v, id, "", u, w, &details); err != nil {
			return nil, err
		}
		if len(details) > 0 {
			return nil, invalid(details)
		}
	}
	return w, nil
}

func (q *request) groupWhole(v *apps.View, id, path string, u groupUpdate, w *wish, details *[]Detail) error {
	if id != "/" {
		if err := api.CheckAppID(id); err != nil {
			*details = add(*details, path+"/id", err.Error())
			return nil
		}
	}
	if v.Apps[id] != nil {
		return refuse(http.StatusConflict, "An app with id [%s] already exists.", id)
	}
	if len(u.Pods) > 0 {
		*details = add(*details, path+"/pods", unsupported["pods"])
	}
	g := &apps.Group{ID: id}
	for _, d := range u.Dependencies {
		g.Dependencies = append(g.Dependencies, absolute(apps.Parent(id), d))
	}
	if old := v.Groups[id]; old == nil || !slices.Equal(old.Dependencies, g.Dependencies) {
		w.groups[id] = g
	}
	listed := map[string]bool{}
	for i, sent := range u.Apps {
		here := path + "/apps(" + itoa(i) + ")"
		var name string
		_ = json.Unmarshal(sent["id"], &name)
		a, err := decodeApp(sent, id, "")
		if bad, ok := err.(*Refusal); ok && bad.Status == http.StatusUnprocessableEntity {
			for _, d := range bad.Details {
				*details = append(*details, Detail{here + d.Path, d.Errors})
			}
			continue
		} else if err != nil {
			return err
		}
		switch {
		case apps.Parent(a.ID) != id:
			*details = add(*details, here+"/id", "\""+name+"\" is not in the group "+id)
		case listed[a.ID]:
			*details = add(*details, here+"/id", "is there twice")
		case v.Apps[a.ID] == nil && v.Known(a.ID):
			return refuse(http.StatusConflict, "A group with id [%s] already exists.", a.ID)
		}
		*details = q.checkNetworks(*details, here, a)
		listed[a.ID], w.apps[a.ID] = true, a
	}
	if u.Apps != nil {
		for name := range v.Apps {
			if apps.Parent(name) == id && !listed[name] {
				w.apps[name] = nil
			}
		}
	}
	return q.groupsBelow(v, id, path, u, w, details)
}

func (q *request) groupsBelow(v *apps.View, id, path string, u groupUpdate, w *wish, details *[]Detail) error {
	listed := map[string]bool{}
	for i, inner := range u.Groups {
		here := path + "/groups(" + itoa(i) + ")"
		if inner.ID == "" {
			*details = add(*details, here+"/id", "is missing")
			continue
		}
		name := absolute(strings.TrimSuffix(id, "/"), inner.ID)
		if apps.Parent(name) != id {
			*details = add(*details, here+"/id", "\""+inner.ID+"\" is not in the group "+id)
			continue
		}
		listed[name] = true
		if err := q.groupWhole(v, name, here, inner, w, details); err != nil {
			return err
		}
	}
	if u.Groups == nil {
		return nil
	}
	for name := range v.Apps {
		if child := childOf(id, name); child != "" && !listed[child] {
			w.apps[name] = nil
		}
	}
	for name := range v.Groups {
		if child := childOf(id, name+"/"); child != "" && !listed[child] {
			w.groups[name] = nil
		}
	}
	return nil
}

// childOf is the group right below a group that an id is in; empty when it is not
// below it, or an app right in it.
func childOf(group, id string) string {
	below := strings.TrimSuffix(group, "/") + "/"
	rest, ok := strings.CutPrefix(id, below)
	child, _, inside := strings.Cut(rest, "/")
	if !ok || !inside {
		return ""
	}
	return below + child
}

func (q *request) deleteGroup(id string) error {
	out, err := q.change(func(v *apps.View) (*wish, error) {
		if !v.Known(id) {
			return nil, noGroup(id)
		}
		w := &wish{apps: map[string]*api.App{}, groups: map[string]*apps.Group{}}
		for name := range v.Apps {
			if inGroup(name, id) {
				w.apps[name] = nil
			}
		}
		for name := range v.Groups {
			if name == id || inGroup(name, id) {
				w.groups[name] = nil
			}
		}
		return w, nil
	}, false)
	if err != nil {
		return err
	}
	return q.told(http.StatusOK, out)
}
