package apps

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// Namespace of the services that follow from apps, as in
// web.marathon.vip.weir.internal.
const Namespace = "marathon"

// PortField is the field of an app that has its ports.
func PortField(a *api.App) string {
	if a.HostNetwork() {
		return "portDefinitions"
	}
	return "container.portMappings"
}

// portLabels of one port of an app.
func portLabels(a *api.App, port int) api.Labels {
	if a.HostNetwork() {
		return a.PortDefinitions[port].Labels
	}
	return a.Container.PortMappings[port].Labels
}

// WrittenVIP is the name of a VIP as the label has it, but for case and the
// first slash.
func WrittenVIP(a *api.App, v api.AppVIP) string {
	host, _, _ := strings.Cut(portLabels(a, v.Port)[v.Label], ":")
	return strings.ToLower(strings.TrimPrefix(host, "/"))
}

// Warnings are what is wrong with an app and does not keep it from running: labels
// that ask for virtual IPs in vain.
func Warnings(a *api.App) []string {
	_, err := a.VIPs()
	var list []string
	for _, f := range api.FieldErrors(err) {
		list = append(list, f.Error())
	}
	return list
}

// Member is a task as the services of its app see it.
type Member struct {
	Task *Task
	// App as the task was launched, with the labels of now.
	App *api.App
	// State that its backends are in: up, draining or down, which is no backend.
	State api.BackendState
}

// frontend is one address and port that clients connect to.
type frontend struct {
	vip      api.VIP
	protocol api.Protocol
}

func (f frontend) less(g frontend) int {
	return cmp.Or(cmp.Compare(f.vip.Name, g.vip.Name), f.vip.Addr.Compare(g.vip.Addr), cmp.Compare(f.vip.Port, g.vip.Port), cmp.Compare(f.protocol, g.protocol))
}

// Services are what the labels of apps' ports ask for: one per VIP, port and
// protocol, of however many apps. The names of those that were there before stay
// theirs. An app without tasks has its services too: their names resolve.
func Services(all []*api.App, members []Member, before map[string]*api.Service) []*api.Service {
	backends := map[frontend]map[netip.AddrPort]api.Backend{}
	claim := func(a *api.App, take func(f frontend, port int)) {
		vips, _ := a.VIPs()
		for _, v := range vips {
			for _, protocol := range v.Protocols {
				f := frontend{v.VIP, protocol}
				if backends[f] == nil {
					backends[f] = map[netip.AddrPort]api.Backend{}
				}
				if take != nil {
					take(f, v.Port)
				}
			}
		}
	}
	for _, a := range all {
		claim(a, nil)
	}
	for _, m := range members {
		if m.State == api.Down {
			continue
		}
		claim(m.App, func(f frontend, port int) {
			for _, address := range m.Task.addresses(m.App, port, f.protocol) {
				if f.vip.Addr.IsValid() && f.vip.Addr.Is4() != address.Addr().Is4() {
					continue // a literal VIP has backends of its own family
				}
				b := api.Backend{Address: address, Node: m.Task.Node}
				if m.State != api.Up {
					b.State = m.State
				}
				if old, ok := backends[f][address]; !ok || old.State != "" {
					backends[f][address] = b // who is up counts
				}
			}
		})
	}
	return named(backends, before)
}

// addresses of one port of the task: the node's where the port is published
// there, else the task's own.
func (t *Task) addresses(a *api.App, port int, protocol api.Protocol) []netip.AddrPort {
	p, ok := t.port(a, port, protocol)
	if !ok {
		return nil
	}
	if p.HostPort != 0 {
		if host, err := netip.ParseAddr(t.Host); err == nil {
			return []netip.AddrPort{netip.AddrPortFrom(host, p.HostPort)}
		}
		return nil
	}
	var list []netip.AddrPort
	for _, own := range t.Status.Addresses {
		if p.Port != 0 {
			list = append(list, netip.AddrPortFrom(own, p.Port))
		}
	}
	return list
}

// port of the task that an app's port of the index has become: there is one for
// each protocol.
func (t *Task) port(a *api.App, index int, protocol api.Protocol) (api.TaskPort, bool) {
	at := 0
	count := func(text string) int { return strings.Count(text, ",") + 1 }
	for i := range index {
		if a.HostNetwork() {
			at += count(a.PortDefinitions[i].Protocol)
		} else {
			at += count(a.Container.PortMappings[i].Protocol)
		}
	}
	for _, p := range t.Ports[min(at, len(t.Ports)):min(at+2, len(t.Ports))] {
		if have := cmp.Or(p.Protocol, api.TCP); have == protocol {
			return p, true
		}
	}
	return api.TaskPort{}, false
}

// named makes services of the frontends. The first port of a name has the name
// itself, others have the port with it.
func named(backends map[frontend]map[netip.AddrPort]api.Backend, before map[string]*api.Service) []*api.Service {
	taken, names := map[string]bool{}, map[frontend]string{}
	all := slices.SortedFunc(maps.Keys(backends), frontend.less)
	for _, s := range before {
		f := frontend{s.VIPs[0], s.EffectiveProtocol()}
		if backends[f] != nil && names[f] == "" {
			names[f], taken[api.ServiceKey(s)] = s.Name, true
		}
	}
	list := make([]*api.Service, 0, len(all))
	for _, f := range all {
		s := &api.Service{Name: names[f], Namespace: Namespace, VIPs: []api.VIP{f.vip}, Protocol: f.protocol}
		if s.Name == "" {
			s.Name = f.vip.Name
			if f.vip.Name == "" {
				s.Name = "ip-" + strings.NewReplacer(".", "-", ":", "-").Replace(f.vip.Addr.StringExpanded())
			}
			if taken[api.ServiceKey(s)] {
				s.Name = withPort(s.Name, f.vip.Port)
			}
			for n := 2; taken[api.ServiceKey(s)]; n++ {
				s.Name = withPort(f.vip.Name, f.vip.Port) + "-" + strconv.Itoa(n)
			}
			taken[api.ServiceKey(s)] = true
		}
		for _, address := range slices.SortedFunc(maps.Keys(backends[f]), netip.AddrPort.Compare) {
			s.Backends = append(s.Backends, backends[f][address])
		}
		list = append(list, s)
	}
	return list
}

// withPort is a label with a port at its end, at most 63 characters.
func withPort(name string, port uint16) string {
	end := fmt.Sprintf("-%d", port)
	return strings.TrimRight(name[:min(len(name), 63-len(end))], "-") + end
}
