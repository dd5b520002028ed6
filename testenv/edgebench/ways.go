package edgebench

import (
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// way is one kind of edge.
type way struct {
	name string
	// reference has it measured always, since others are against it.
	reference bool
	wire      bool // no edge: the sink is at the sender's wire
	// xdp has the sink take frames at native XDP, as the edge sends them.
	xdp     bool
	deliver api.Deliver // of ours; empty: another's
	mode    dataplane.AttachMode
	rules   string // of nftables
}

const forwarding = "forwarding"

// natRules are what a balancer of one's own in nftables is: one map from frontends
// to backends.
const natRules = `table ip bench {
	map services {
		type ipv4_addr . inet_service : ipv4_addr . inet_service
		elements = { ` + frontendAddress + ` . 80 : ` + backendAddress + ` . 8080 }
	}
	chain prerouting {
		type nat hook prerouting priority -100
		meta l4proto udp dnat ip to ip daddr . udp dport map @services
	}
`

// masqueradeRules have the backend answer to the edge, as our delivery by NAT does.
const masqueradeRules = `	chain postrouting {
		type nat hook postrouting priority 100
		oifname "e1" masquerade
	}
`

var ways = []way{
	{name: "wire xdp", reference: true, wire: true, xdp: true},
	{name: "wire", reference: true, wire: true},
	{name: forwarding, reference: true},
	{name: "nftables dnat", rules: natRules + "}\n"},
	{name: "nftables dnat+masquerade", rules: natRules + masqueradeRules + "}\n"},
	{name: "native ipip", xdp: true, deliver: api.IPIP, mode: dataplane.AttachNative},
	{name: "native dsr", xdp: true, deliver: api.DSR, mode: dataplane.AttachNative},
	{name: "native nat", xdp: true, deliver: api.NAT, mode: dataplane.AttachNative},
	{name: "generic ipip", deliver: api.IPIP, mode: dataplane.AttachGeneric},
	{name: "generic dsr", deliver: api.DSR, mode: dataplane.AttachGeneric},
	{name: "generic nat", deliver: api.NAT, mode: dataplane.AttachGeneric},
	{name: "tcx ipip", deliver: api.IPIP, mode: dataplane.AttachTCX},
	{name: "tcx dsr", deliver: api.DSR, mode: dataplane.AttachTCX},
	{name: "tcx nat", deliver: api.NAT, mode: dataplane.AttachTCX},
}

// Ways that Options.Only may name.
func Ways() []string {
	var names []string
	for _, w := range ways {
		if !w.reference {
			names = append(names, w.name)
		}
	}
	return names
}

// resultOf compares the rigs' rounds.
func resultOf(rigs []*rig) Result {
	r := Result{Kernel: kernelRelease(), Processors: processors()}
	of := func(name string) []float64 {
		return rigs[slices.IndexFunc(rigs, func(r *rig) bool { return r.way.name == name })].rates
	}
	for _, g := range rigs {
		wire := of("wire")
		if g.way.xdp {
			wire = of("wire xdp")
		}
		row := Row{Name: g.way.name, PacketsPerSecond: spread(g.rates)}
		var ratios, costs []float64
		for i, rate := range g.rates {
			ratios = append(ratios, rate/of(forwarding)[i])
			cost := 1e9 / rate
			if !g.way.wire {
				cost -= 1e9 / wire[i]
			}
			costs = append(costs, cost)
		}
		row.OfForwarding, row.Nanoseconds = spread(ratios), spread(costs)
		r.Rows = append(r.Rows, row)
	}
	return r
}

// spread is zero without values.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{median, sorted[0], sorted[len(sorted)-1]}
}
