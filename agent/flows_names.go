package agent

import (
	"net/netip"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

// namesKept bounds how many addresses are remembered with whose they are.
const namesKept = 10_000

// flowNames tells whose addresses are, by one snapshot. It is made anew for each,
// and used by one goroutine.
type flowNames struct {
	snapshot *api.Snapshot
	view     *zones.View
	place    func(field string) (file string, line int)
	tasks    map[netip.AddrPort][]string // port 0: the address is the tasks' own
	services map[netip.AddrPort]string   // by VIP
	whois    map[netip.Addr]api.ZoneIdentity
}

func newFlowNames(s *api.Snapshot, view *zones.View) *flowNames {
	n := &flowNames{snapshot: s, view: view, tasks: map[netip.AddrPort][]string{}, services: map[netip.AddrPort]string{}, whois: map[netip.Addr]api.ZoneIdentity{}}
	hosts := map[string][]netip.Addr{}
	for _, node := range s.Nodes {
		hosts[node.Name] = node.Addresses
	}
	for _, t := range s.Tasks {
		if t.State.Ended() {
			continue
		}
		for _, a := range t.Addresses {
			n.addTask(a, 0, t.ID)
		}
		for _, p := range t.Ports {
			if p.HostPort == 0 {
				continue
			}
			for _, a := range hosts[t.Node] {
				n.addTask(a, p.HostPort, t.ID)
			}
		}
	}
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			for _, a := range s.Addresses(service, v) {
				n.services[netip.AddrPortFrom(a, v.Port)] = service.Key()
			}
		}
	}
	return n
}

func (n *flowNames) addTask(a netip.Addr, port uint16, id string) {
	at := netip.AddrPortFrom(a.Unmap(), port)
	n.tasks[at] = append(n.tasks[at], id)
}

// end says whose an address and port are.
func (n *flowNames) end(at netip.AddrPort) api.FlowEnd {
	e := api.FlowEnd{Address: at}
	a := at.Addr()
	if !a.IsValid() {
		return e
	}
	is, known := n.whois[a]
	if !known {
		if len(n.whois) >= namesKept {
			clear(n.whois)
		}
		is = n.view.Whois(a)
		n.whois[a] = is
	}
	e.ZoneIdentity = is
	if e.Tasks = n.tasks[netip.AddrPortFrom(a, 0)]; e.Tasks == nil {
		e.Tasks = n.tasks[at]
	}
	return e
}

// local is the end of a socket of this node: an address that is on lo alone is the
// node's own. A socket that never sent has none.
func (n *flowNames) local(at netip.AddrPort) api.FlowEnd {
	if at.Addr().IsUnspecified() {
		at = netip.AddrPort{}
	}
	e := n.end(at)
	if (!at.IsValid() || at.Addr().IsLoopback()) && len(e.Nodes) == 0 {
		e.Nodes = []string{n.snapshot.Node.Name}
	}
	return e
}
