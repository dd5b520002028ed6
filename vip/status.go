package vip

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// StatusOptions are what Statuses joins with the snapshot.
type StatusOptions struct {
	// Domain of the cluster, for the DNS names.
	Domain string
	// State observes the backends; nil means that all are up.
	State StateFunc
	// Counters of the kernel, by dataplane.Service.Name; may be empty.
	Counters dataplane.Counters
	// Programmed tells whether the kernel holds a service; nil means none.
	Programmed func(service string, protocol api.Protocol) bool
}

// Statuses tells of every service what is wanted, observed and counted, in the
// snapshot's order.
func Statuses(s *api.Snapshot, o StatusOptions) []api.VIPStatus {
	named := map[string]bool{} // name.namespace of every named VIP
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			if v.Name != "" {
				named[v.Name+"."+service.EffectiveNamespace()] = true
			}
		}
	}
	all := make([]api.VIPStatus, 0, len(s.Services))
	for _, service := range s.Services {
		v := status(s, service, o)
		v.DNSNames = dnsNames(service, named, o.Domain)
		all = append(all, v)
	}
	return all
}

// dnsNames are the names of the service's VIPs. A literal VIP goes by the
// service's own name, unless that is the name of an address of its own.
func dnsNames(service api.Service, named map[string]bool, domain string) []string {
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

func status(s *api.Snapshot, service api.Service, o StatusOptions) api.VIPStatus {
	protocol := service.EffectiveProtocol()
	v := api.VIPStatus{
		Name: service.Name, Namespace: service.EffectiveNamespace(), Protocol: protocol, Balance: service.Balance,
		Affinity: service.Affinity, VIPs: service.VIPs,
		Addresses: []netip.AddrPort{}, Backends: []api.BackendStatus{},
		Programmed: o.Programmed != nil && o.Programmed(service.Key(), protocol),
	}
	if v.Balance == "" {
		v.Balance = api.Random
	}
	for _, w := range service.VIPs {
		for _, a := range s.Addresses(service, w) {
			v.Addresses = append(v.Addresses, netip.AddrPortFrom(a, w.Port))
		}
	}
	connections := map[netip.AddrPort]uint64{}
	for _, family := range []string{"/4", "/6"} {
		counters := o.Counters.Services[service.Key()+"/"+string(protocol)+family]
		v.Connections += counters.Connections
		v.Refused += counters.Refused
		for address, n := range counters.Backends {
			connections[address] += n
		}
	}
	for _, b := range service.Backends {
		state, reason := stateOf(service, b, o.State)
		v.Backends = append(v.Backends, api.BackendStatus{
			Address: b.Address, Node: b.Node, Weight: b.EffectiveWeight(), State: state, Reason: reason,
			Connections: connections[plain(b.Address)],
		})
	}
	return v
}
