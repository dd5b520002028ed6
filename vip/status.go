package vip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// StatusOptions are what Statuses joins with the snapshot.
type StatusOptions struct {
	// Domain of the cluster, for the DNS names.
	Domain string
	// State observes the backends; nil means that all are up.
	State StateFunc
	// Drained is as in Options.
	Drained func(service string, protocol api.Protocol, backend netip.AddrPort) bool
	// Now and UpSince are as in Options, for slow starts.
	Now     time.Time
	UpSince func(service string, protocol api.Protocol, backend netip.AddrPort) time.Time
	// Table in force, for the backends' shares; may be empty.
	Table dataplane.Table
	// Counters of the kernel, by dataplane.Service.Name; may be empty.
	Counters dataplane.Counters
	// Programmed tells whether the kernel holds a service; nil means none.
	Programmed func(service string, protocol api.Protocol) bool
}

// Statuses tells of every service what is wanted, observed and counted, in the
// snapshot's order.
func Statuses(s *api.Snapshot, o StatusOptions) []api.VIPStatus {
	named := map[string]bool{} // name.namespace of every named VIP
	for i := range s.Services {
		nameVIPs(named, &s.Services[i])
	}
	all := make([]api.VIPStatus, 0, len(s.Services))
	f := newFleet(s)
	for i := range s.Services {
		service := &s.Services[i]
		v := status(s, service, f, &o)
		v.DNSNames = dnsNames(service, named, o.Domain)
		all = append(all, v)
	}
	return all
}

// nameVIPs notes name.namespace of the service's named VIPs.
func nameVIPs(named map[string]bool, doc *api.Service) {
	for _, v := range doc.VIPs {
		if v.Name != "" {
			named[v.Name+"."+doc.EffectiveNamespace()] = true
		}
	}
}

// dnsNames are the names of the service's VIPs. A literal VIP goes by the
// service's own name, unless that is the name of an address of its own.
func dnsNames(service *api.Service, named map[string]bool, domain string) []string {
	var names []string
	for _, v := range service.VIPs {
		label := v.Name
		if label == "" {
			if label = service.Name; named[service.Key()] {
				continue
			}
		}
		name := label + "." + service.EffectiveNamespace() + ".vip." + domain
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func status(s *api.Snapshot, doc *api.Service, f *fleet, o *StatusOptions) api.VIPStatus {
	ref := refOf(doc)
	v := api.VIPStatus{
		Name: doc.Name, Namespace: doc.EffectiveNamespace(), Protocol: ref.Protocol, Balance: doc.Balance,
		Affinity: doc.Affinity, VIPs: doc.VIPs, MaxConnections: doc.MaxConnections, Prefer: doc.Prefer, Edge: doc.Edge,
		Addresses: []netip.AddrPort{}, Backends: []api.BackendStatus{},
		Programmed: o.Programmed != nil && o.Programmed(ref.Service, ref.Protocol),
	}
	if v.Balance == "" {
		v.Balance = api.Random
	}
	for _, w := range doc.VIPs {
		for _, a := range s.Addresses(*doc, w) {
			v.Addresses = append(v.Addresses, netip.AddrPortFrom(a, w.Port))
		}
	}
	byAddress := map[netip.AddrPort]api.BackendStatus{}
	for family := range families {
		counters := o.Counters.Services[ref.table(family)]
		v.Connections += counters.Connections
		v.Refused += counters.Refused
		v.Limited += counters.Limited
		for _, b := range backendStatuses(ref, doc, family, f, o) {
			n := counters.Backends[b.Address]
			b.Connections, b.Open, b.Failures, b.Reset = n.Connections, n.Open, n.Failures, n.Reset
			v.Open += n.Open
			byAddress[b.Address] = b
		}
	}
	for _, b := range doc.Backends {
		status := byAddress[plain(b.Address)]
		status.Address, status.Weight = b.Address, b.EffectiveWeight()
		v.Backends = append(v.Backends, status)
	}
	return v
}

// backendStatuses of an address family, without what is counted.
func backendStatuses(ref ServiceRef, doc *api.Service, family int, f *fleet, o *StatusOptions) []api.BackendStatus {
	all, _ := servers(ref, doc, family, f, &Options{State: o.State, Drained: o.Drained, Now: o.Now, UpSince: o.UpSince})
	shares := map[netip.AddrPort]float64{}
	if t := find(o.Table, ref.table(family)); t != nil {
		shares = sharesOf(t)
	}
	load := loads(all)
	var statuses []api.BackendStatus
	for _, s := range all {
		statuses = append(statuses, api.BackendStatus{
			Address: s.address, Node: s.node, State: s.state, Reason: s.reason, Share: shares[s.address], Note: note(doc, s, load),
		})
	}
	return statuses
}

// note says why a backend's share is not what its weight asks for.
func note(doc *api.Service, s server, load [levels]int) string {
	var parts []string
	if s.level > 0 && s.level < full {
		parts = append(parts, fmt.Sprintf("starts slowly, at %d%% of its share", s.level*100/full))
	}
	if doc.Prefer != "" {
		where := [levels]string{"on this node", "in this zone", "far"}[s.near]
		parts = append(parts, fmt.Sprintf("%s: %d%% of connections go there", where, load[s.near]))
	}
	return strings.Join(parts, "; ")
}

// find returns the service's table; nil if there is none.
func find(t dataplane.Table, name string) *dataplane.Service {
	i, found := slices.BinarySearchFunc(t.Services, name, func(s *dataplane.Service, name string) int { return cmp.Compare(s.Name, name) })
	if !found {
		return nil
	}
	return t.Services[i]
}

// sharesOf are the percentages of slots of each backend that has any.
func sharesOf(t *dataplane.Service) map[netip.AddrPort]float64 {
	counts := make([]int, len(t.Backends))
	for _, i := range t.Slots {
		counts[i]++
	}
	shares := map[netip.AddrPort]float64{}
	for i, n := range counts {
		if n > 0 {
			shares[t.Backends[i].Address] = 100 * float64(n) / float64(len(t.Slots))
		}
	}
	return shares
}
