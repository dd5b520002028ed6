package marathon

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/deploy"
)

// maxDeployments that may run at once, as in Marathon.
const maxDeployments = 100

func itoa(n int) string { return strconv.Itoa(n) }

// newID is a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// wish is what a request makes of apps and groups; nil is what it deletes.
type wish struct {
	apps    map[string]*api.App
	groups  map[string]*apps.Group
	restart map[string]bool // apps that get new tasks though nothing has changed
	asks    []apps.Ask
}

// outcome of a wish.
type outcome struct {
	deployment deploy.Deployment
	version    string
	created    map[string]bool
	nothing    bool // it was so already
}

// change makes it so, in one transaction, with a deployment that brings it
// about. decide may be called several times. With dry nothing is written.
func (q *request) change(decide func(*apps.View) (*wish, error), dry bool) (*outcome, error) {
	var out *outcome
	force := q.flag("force", false)
	write := func(v *apps.View) (*apps.Write, error) {
		w, err := decide(v)
		if err != nil {
			return nil, err
		}
		var written *apps.Write
		if out, written, err = q.plan(v, w, force); err != nil || dry {
			return nil, err
		}
		if written != nil && q.o.Record != nil {
			op, err := q.o.Record(q.r, q.who, q.verb, q.noun)
			if err != nil {
				return nil, err
			}
			written.More = append(written.More, op)
		}
		return written, nil
	}
	if err := q.o.Catalog.Write(q.r.Context(), write); err != nil {
		return nil, err
	}
	return out, nil
}

// plan finds what a wish changes, whether that may be, and the way there.
func (q *request) plan(v *apps.View, w *wish, force bool) (*outcome, *apps.Write, error) {
	now := q.o.Now()
	out := &outcome{version: apps.Stamp(now), created: map[string]bool{}}
	changed, before := map[string]*api.App{}, map[string]*api.App{}
	apps.Allot(v.Apps, w.apps)
	var holders []string
	for _, id := range slices.Sorted(maps.Keys(w.apps)) {
		a, old := w.apps[id], v.Apps[id]
		if a == nil && old == nil || a != nil && old != nil && !w.restart[id] && apps.Same(old, a) {
			continue
		}
		if a != nil {
			apps.Stamped(old, a, now, w.restart[id])
			out.version = max(out.version, a.Version)
			out.created[id] = old == nil
		}
		changed[id] = a
		if old != nil {
			before[id] = old
		}
		holders = append(holders, v.Locks(id)...)
	}
	slices.Sort(holders)
	holders = slices.Compact(holders)
	if len(holders) > 0 && !force {
		return nil, nil, locked(holders)
	}
	if len(v.Deployments)-len(holders) >= maxDeployments {
		return nil, nil, refuse(http.StatusForbidden, "Max number (%d) of running deployments is achieved. Wait for existing deployments to complete or cancel one using force=true.", maxDeployments)
	}
	if err := conflicts(v, changed); err != nil {
		return nil, nil, err
	}
	after := maps.Clone(changed)
	maps.DeleteFunc(after, func(_ string, a *api.App) bool { return a == nil })
	groups := maps.Clone(v.Groups)
	for id, g := range w.groups {
		if g == nil {
			delete(groups, id)
		} else if groups[id] = g; g.Version == "" {
			g.Version = out.version
		}
	}
	var err error
	out.deployment, err = deploy.Plan(apps.Tree("/", before, v.Groups, nil), apps.Tree("/", after, groups, nil), q.o.NewID(), now)
	if err != nil {
		return nil, nil, invalid([]Detail{{"/dependencies", []string{err.Error()}}})
	}
	if out.deployment.Version == "" {
		out.deployment.Version = out.version
	}
	out.nothing = len(changed)+len(w.groups)+len(w.asks) == 0
	if out.nothing {
		return out, nil, nil
	}
	written := &apps.Write{Apps: changed, Groups: w.groups, Replaced: holders, Asks: w.asks}
	if len(out.deployment.Steps) > 0 {
		written.Deployment = &out.deployment
	}
	return out, written, nil
}

// conflicts refuses an app whose port asks for a VIP by a name that another app
// writes otherwise: "/a/b" and "/ab" are one name in DNS, and would share their
// clients unawares.
func conflicts(v *apps.View, changed map[string]*api.App) error {
	written := map[string]string{} // VIP's name to what was written
	read := func(a *api.App, take func(port int, label, name, as string)) {
		vips, _ := a.VIPs() // wrong ones are told elsewhere
		for _, one := range vips {
			if one.VIP.Name != "" {
				take(one.Port, one.Label, one.VIP.Name, apps.WrittenVIP(a, one))
			}
		}
	}
	for id, a := range v.Apps {
		if _, ok := changed[id]; !ok {
			read(a, func(_ int, _, name, as string) { written[name] = as })
		}
	}
	var details []Detail
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		a := changed[id]
		if a == nil {
			continue
		}
		read(a, func(port int, label, name, as string) {
			if other, ok := written[name]; ok && other != as {
				details = add(details, pathOf(fmt.Sprintf("%s[%d].labels.%s", apps.PortField(a), port, label)),
					fmt.Sprintf("%q is %q in DNS, and so is %q of another app: choose another name", as, name, other))
				return
			}
			written[name] = as
		})
	}
	if len(details) > 0 {
		return invalid(details)
	}
	return nil
}

// told answers a change in Marathon's words.
func (q *request) told(status int, out *outcome) error {
	q.w.Header().Set("Marathon-Deployment-Id", out.deployment.ID)
	send(q.w, status, map[string]string{"version": out.deployment.Version, "deploymentId": out.deployment.ID})
	return nil
}
