package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/weirproject/weir/agent/ipam"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/dataplane/container"
)

// networkRoutes serve the containers of other orchestrators, which weir-cni
// attaches. Tasks are none of their affair.
func (a *Agent) networkRoutes(mux *http.ServeMux) {
	n := a.networks
	mux.HandleFunc("GET "+client.PathNetworks, answer(func(*http.Request) (any, error) { return n.statuses(), nil }))
	mux.HandleFunc("GET "+client.PathAttachments, answer(func(*http.Request) (any, error) { return n.book.All(), nil }))
	mux.HandleFunc("POST "+client.PathAttachments, answer(asked(n.attachForeign)))
	mux.HandleFunc("GET "+client.PathAttachment, answer(func(r *http.Request) (any, error) {
		return n.check(cniID(r.FormValue("container"), r.FormValue("interface")))
	}))
	mux.HandleFunc("DELETE "+client.PathAttachment, answer(func(r *http.Request) (any, error) {
		return struct{}{}, n.detach(r.Context(), cniID(r.FormValue("container"), r.FormValue("interface")))
	}))
	mux.HandleFunc("POST "+client.PathAttachmentsKeep, answer(n.keep))
}

// cniID is the id of an attachment of another orchestrator.
func cniID(container, iface string) string { return "cni/" + container + "/" + iface }

func (n *Networks) attachForeign(ctx context.Context, r api.AttachRequest) (api.Attached, error) {
	for _, one := range []struct {
		field string
		bad   bool
	}{
		{"container", r.Container == ""}, {"network", r.Network == ""}, {"namespace", !filepath.IsAbs(r.Namespace)},
		{"interface", r.Interface == "" || len(r.Interface) > 15},
	} {
		if one.bad {
			return api.Attached{}, &httpError{http.StatusBadRequest, fmt.Errorf("%s is missing or wrong", one.field)}
		}
	}
	id := cniID(r.Container, r.Interface)
	if _, there := n.book.Get(id); there {
		return api.Attached{}, &httpError{http.StatusConflict, fmt.Errorf("%s is attached already", id)}
	}
	made, err := n.attach(ctx, api.Attachment{
		ID: id, Owner: ownerCNI, App: r.App, Labels: r.Labels, Config: r.Config, Namespace: r.Namespace, Ports: r.Ports,
		Interfaces: []api.AttachedInterface{{Network: r.Network, Name: r.Interface, Addresses: r.Addresses, Default: r.Default}},
	})
	switch {
	case errors.Is(err, errNoNetwork):
		return api.Attached{}, &httpError{http.StatusNotFound, err}
	case errors.Is(err, errNotReady):
		return api.Attached{}, &httpError{http.StatusServiceUnavailable, err}
	case errors.Is(err, ipam.ErrFull):
		return api.Attached{}, &httpError{http.StatusInsufficientStorage, err}
	case errors.Is(err, ipam.ErrTaken):
		return api.Attached{}, &httpError{http.StatusConflict, err}
	case err != nil:
		return api.Attached{}, err
	}
	return n.described(made), nil
}

// described adds what a container has to know of its network.
func (n *Networks) described(a api.Attachment) api.Attached {
	c := n.agent.config
	d := api.Attached{Attachment: a, DNS: c.DNS.Listen, Domain: c.DNS.Domain}
	n.setting.Lock()
	networks := n.networks(n.snapshot, true)
	n.setting.Unlock()
	for _, i := range a.Interfaces {
		at := slices.IndexFunc(networks, func(c container.Network) bool { return c.Name == i.Network })
		if at < 0 {
			continue
		}
		d.Gateways = append(d.Gateways, networks[at].Gateways...)
		d.Ranges = append(d.Ranges, networks[at].Ranges...)
		d.MTU, d.HostInterface = n.sink.MTU(i.Network), container.VethName(a.ID, i.Network)
		if len(i.Addresses) > 0 {
			d.MAC = container.MAC(i.Network, i.Addresses[0]).String()
		}
	}
	return d
}

// check compares one with the kernel.
func (n *Networks) check(id string) (api.Attached, error) {
	a, found := n.book.Get(id)
	if !found {
		return api.Attached{}, &httpError{http.StatusNotFound, fmt.Errorf("%s is not attached", id)}
	}
	if space, err := namespaceID(a.Namespace); err != nil || space != a.Space {
		return api.Attached{}, &httpError{http.StatusConflict, fmt.Errorf("%s: its network namespace is gone", id)}
	}
	if err := n.sink.Check(endpointOf(a)); err != nil {
		return api.Attached{}, &httpError{http.StatusConflict, err}
	}
	return n.described(a), nil
}

// keep takes out what an orchestrator knows no longer.
func (n *Networks) keep(r *http.Request) (any, error) {
	var alive []api.AttachRequest
	if err := json.NewDecoder(r.Body).Decode(&alive); err != nil {
		return nil, &httpError{http.StatusBadRequest, fmt.Errorf("read the request: %w", err)}
	}
	config := r.FormValue("config")
	if config == "" {
		return nil, &httpError{http.StatusBadRequest, errors.New("config is missing")}
	}
	known := map[string]bool{}
	for _, one := range alive {
		known[cniID(one.Container, one.Interface)] = true
	}
	n.setting.Lock()
	defer n.setting.Unlock()
	taken := []string{}
	err := n.collect(func(a api.Attachment) bool {
		dead := a.Owner == ownerCNI && !known[a.ID] && a.Config == config
		if dead {
			taken = append(taken, a.ID)
		}
		return dead
	})
	_, setErr := n.set(r.Context())
	return taken, errors.Join(err, setErr)
}

// statuses lists this node's networks.
func (n *Networks) statuses() []api.NetworkStatus {
	n.setting.Lock()
	networks := n.networks(n.snapshot, true)
	n.setting.Unlock()
	attached := map[string]int{}
	for _, a := range n.book.All() {
		for _, i := range a.Interfaces {
			attached[i.Network]++
		}
	}
	all := []api.NetworkStatus{}
	for _, one := range networks {
		all = append(all, api.NetworkStatus{
			Name: one.Name, Mode: one.Mode, Bridge: container.BridgeName(one.Name), Gateways: one.Gateways, Ranges: one.Ranges,
			Peers: len(one.Peers), Attached: attached[one.Name],
		})
	}
	return all
}
