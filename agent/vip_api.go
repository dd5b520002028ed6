package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/vip"
)

// reachTimeout is how long explain waits for a backend to answer.
const reachTimeout = time.Second

func (a *Agent) explainVIP(r *http.Request) (any, error) {
	s := a.snapshot.Load()
	if s == nil {
		return nil, &httpError{http.StatusServiceUnavailable, errNotReady}
	}
	status, err := a.vips.statusOptions()
	if err != nil {
		return nil, err
	}
	o := vip.ExplainOptions{
		StatusOptions: status, Aliases: a.config.DNS.Aliases, Protocol: api.Protocol(r.FormValue("protocol")),
		Reach: func(protocol api.Protocol, backend netip.AddrPort) error {
			if protocol != api.TCP {
				return nil // silence proves nothing
			}
			conn, err := net.DialTimeout("tcp", backend.String(), reachTimeout)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
	if a.dns.proxy != nil {
		o.Resolve = func(name string) ([]netip.Addr, error) { return a.resolveName(r, name) }
	}
	return vip.Explain(s, r.FormValue("name"), o), nil
}

// resolveName asks the node's own proxy for both kinds of address.
func (a *Agent) resolveName(r *http.Request, name string) (all []netip.Addr, err error) {
	for _, kind := range []string{"A", "AAAA"} {
		got, err := a.dns.proxy.Query(r.Context(), name, kind)
		if err != nil {
			return nil, err
		}
		for _, record := range got.Answer {
			fields := strings.Fields(record)
			if address, err := netip.ParseAddr(fields[len(fields)-1]); err == nil {
				all = append(all, address)
			}
		}
	}
	return all, nil
}

func (a *Agent) traceVIP(r *http.Request) (any, error) {
	bad := func(format string, args ...any) error {
		return &httpError{http.StatusBadRequest, fmt.Errorf(format, args...)}
	}
	protocol := api.Protocol(r.FormValue("protocol"))
	target, protocol, err := a.findVIP(r.FormValue("vip"), protocol)
	if err != nil {
		return nil, err
	}
	var client vip.Client
	if from := r.FormValue("client"); from != "" {
		if client.Address, err = netip.ParseAddr(from); err != nil {
			return nil, bad("the client %q is no address", from)
		}
	} else if client.Cookie, err = namespaceCookie(); err != nil {
		return nil, err
	}
	return vip.Trace(a.vips.table(), client, target, protocol), nil
}

// findVIP reads address:port, or takes the first address of a service by name.
func (a *Agent) findVIP(text string, protocol api.Protocol) (netip.AddrPort, api.Protocol, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		if protocol == "" {
			protocol = api.TCP
		}
		return at, protocol, nil
	}
	found, err := a.namedVIP(text, protocol)
	if err != nil {
		return netip.AddrPort{}, "", err
	}
	if len(found.Addresses) == 0 {
		return netip.AddrPort{}, "", &httpError{http.StatusConflict, fmt.Errorf("%s has no address", text)}
	}
	return found.Addresses[0], found.Protocol, nil
}

func (a *Agent) listConnections(r *http.Request) (any, error) {
	lister, can := a.vips.balancer.(dataplane.ConnectionLister)
	if !can {
		return nil, &httpError{http.StatusNotImplemented, fmt.Errorf("the data plane %s cannot list connections", a.vips.backend())}
	}
	connections, err := lister.Connections()
	if err != nil {
		return nil, err
	}
	name := r.FormValue("name")
	if name != "" && !strings.Contains(name, ".") {
		name += "." + api.DefaultNamespace
	}
	all := []api.Connection{}
	for _, c := range connections {
		service, _, _ := strings.Cut(c.Service, "/")
		if name != "" && service != name {
			continue
		}
		all = append(all, api.Connection{
			Service: service, Protocol: c.Protocol, VIP: c.Frontend, Backend: c.Backend, Client: c.Client,
			State: c.State, Process: c.Process, Command: c.Command,
		})
	}
	return all, nil
}

// drain is the one route that changes anything: what this node gives a backend.
func (a *Agent) drain(r *http.Request) (any, error) {
	var d api.Drain
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return nil, &httpError{http.StatusBadRequest, fmt.Errorf("read the request: %w", err)}
	}
	s := a.snapshot.Load()
	if s == nil {
		return nil, &httpError{http.StatusServiceUnavailable, errNotReady}
	}
	if err := a.backends.check(s, d); err != nil && !d.Undo {
		return nil, &httpError{http.StatusNotFound, err}
	}
	if a.backends.drainByHand(d) {
		if err := a.saveHandDrains(); err != nil {
			return nil, err
		}
		a.log.Info("drain by hand", "service", d.Service, "protocol", d.Protocol, "backend", d.Backend, "undo", d.Undo)
		a.pokeStates()
	}
	return a.namedVIP(d.Service, d.Protocol)
}

// namedVIP is the status of one service.
func (a *Agent) namedVIP(name string, protocol api.Protocol) (api.VIPStatus, error) {
	all, err := a.vipStatuses()
	if err != nil {
		return api.VIPStatus{}, err
	}
	all = slices.DeleteFunc(all, func(v api.VIPStatus) bool {
		named := v.Name+"."+v.Namespace == name || v.Name == name && v.Namespace == api.DefaultNamespace
		return !named || protocol != "" && v.Protocol != protocol
	})
	switch len(all) {
	case 0:
		return api.VIPStatus{}, &httpError{http.StatusNotFound, fmt.Errorf("there is no service %q; see weir vip list", name)}
	case 1:
		return all[0], nil
	}
	return api.VIPStatus{}, &httpError{http.StatusConflict, fmt.Errorf("%q is a tcp and a udp service: say which protocol", name)}
}

func (a *Agent) showVIP(r *http.Request) (any, error) {
	return a.namedVIP(r.PathValue("name"), api.Protocol(r.FormValue("protocol")))
}

func (a *Agent) vipStatuses() ([]api.VIPStatus, error) {
	s := a.snapshot.Load()
	if s == nil {
		return nil, &httpError{http.StatusServiceUnavailable, errNotReady}
	}
	return a.vips.statuses(s)
}

// errNoCookie is for kernels whose sockets do not tell it (before Linux 5.14).
var errNoCookie = errors.New("the kernel does not tell the network namespace's cookie: give the client's address")

// vipRoutes are the API of virtual IPs.
func (a *Agent) vipRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+client.PathVIPs, answer(func(*http.Request) (any, error) { return a.vipStatuses() }))
	mux.HandleFunc("GET "+client.PathVIPs+"/{name}", answer(a.showVIP))
	mux.HandleFunc("GET "+client.PathVIPExplain, answer(a.explainVIP))
	mux.HandleFunc("GET "+client.PathVIPTrace, answer(a.traceVIP))
	mux.HandleFunc("GET "+client.PathConnections, answer(a.listConnections))
	mux.HandleFunc("POST "+client.PathDrain, answer(a.drain))
}
