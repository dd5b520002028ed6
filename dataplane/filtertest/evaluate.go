package filtertest

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Hook is where a packet is judged.
type Hook string

// The hooks.
const (
	Input   Hook = "input"
	Forward Hook = "forward"
	Output  Hook = "output"
)

// Packet is one that opens a flow, or one that conntrack finds invalid.
type Packet struct {
	Hook                Hook
	Source, Destination netip.Addr
	Protocol            uint8  // among those of IP
	SourcePort, Port    uint16 // of TCP and UDP
	Type                uint8  // of ICMP
	In                  string // the interface
	Invalid             bool
	Delivered           bool // it has dataplane.DeliveredMark
}

func (p Packet) six() bool { return p.Source.Is6() }

// Decide tells what a ruleset means for a packet: the name under which it is
// counted, empty for what passes before any rule, and whether it passes. learnt
// is what the dynamic sets have learnt. No Rate is exceeded.
func Decide(r *dataplane.Ruleset, learnt map[string][]netip.Addr, p Packet, now time.Time) (name string, accept bool) {
	e := evaluator{r, learnt, p, now}
	switch {
	case p.Delivered:
		return "", true
	case p.Hook == Output && r.Inside == "": // nothing is judged
		return "", true
	case p.Hook != Forward && e.neededICMP():
		return "", true
	case p.Invalid:
		return dataplane.Invalid, false
	case p.Hook != Output && slices.ContainsFunc(r.Guards, e.caught):
		return dataplane.Spoofed, false
	case p.Hook == Input && e.dhcp(), p.Hook != Forward && e.election():
		return "", true
	case p.Hook == Forward && !e.in(r.Zoned, p.Source) && !e.in(r.Zoned, p.Destination):
		return "", true
	case p.Hook == Output && (e.in(r.Inside, p.Destination) || stays(p.Destination)):
		return "", true
	}
	rules := map[Hook][]dataplane.FilterRule{Input: r.Input, Forward: r.Forward, Output: r.Output}[p.Hook]
	for _, rule := range rules {
		if e.matches(rule) {
			return rule.Name, !rule.Deny
		}
	}
	return dataplane.DefaultDeny, false
}

type evaluator struct {
	*dataplane.Ruleset
	learnt map[string][]netip.Addr
	Packet
	now time.Time
}

// in tells whether the address is in the set of that name.
func (e evaluator) in(set string, a netip.Addr) bool {
	for _, s := range e.Sets {
		if s.Name == set {
			return slices.ContainsFunc(slices.Collect(s.All()), func(p netip.Prefix) bool { return p.Contains(a) })
		}
	}
	return slices.Contains(e.learnt[set], a)
}

func (e evaluator) neededICMP() bool {
	return e.icmp() && slices.Contains(dataplane.NeededICMP(e.six()), e.Type)
}

func (e evaluator) icmp() bool {
	if e.six() {
		return e.Protocol == unix.IPPROTO_ICMPV6
	}
	return e.Protocol == unix.IPPROTO_ICMP
}

func (e evaluator) caught(g dataplane.Guard) bool {
	return e.in(g.Sources, e.Source) && !slices.ContainsFunc(g.Interfaces, func(pattern string) bool {
		base, wild := strings.CutSuffix(pattern, "*")
		return pattern == e.In || wild && strings.HasPrefix(e.In, base)
	})
}

func (e evaluator) dhcp() bool {
	from, to := uint16(67), uint16(68)
	if e.six() {
		from, to = 547, 546
	}
	return e.Protocol == unix.IPPROTO_UDP && e.SourcePort == from && e.Port == to
}

func (e evaluator) election() bool {
	group := e.Destination.String()
	return e.Protocol == 112 && (group == "224.0.0.18" || group == "ff02::12")
}

// stays tells whether no router passes on what goes to the address.
func stays(a netip.Addr) bool {
	return a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (e evaluator) matches(f dataplane.FilterRule) bool {
	switch {
	case f.From != "" && !e.in(f.From, e.Source):
		return false
	case f.To != "" && !e.in(f.To, e.Destination):
		return false
	case slices.ContainsFunc(f.NotFrom, func(s string) bool { return e.in(s, e.Source) }):
		return false
	case slices.ContainsFunc(f.NotTo, func(s string) bool { return e.in(s, e.Destination) }):
		return false
	case !f.Expires.IsZero() && !e.now.Before(f.Expires):
		return false
	case f.Endpoints != "" && !e.endpoint(f.Endpoints):
		return false
	case e.on(f.NotPorts):
		return false
	case f.Endpoints != "" && len(f.Ports) == 0:
		return true
	}
	return e.on(f.Ports)
}

// on tells whether the packet is one of the ranges'.
func (e evaluator) on(ports []api.PortRange) bool {
	return slices.ContainsFunc(ports, func(p api.PortRange) bool {
		inRange := p.First == 0 && p.Last == 0 || p.First <= e.Port && e.Port <= p.Last
		switch p.Protocol {
		case "any":
			return true
		case "icmp":
			return e.icmp()
		case "tcp":
			return e.Protocol == unix.IPPROTO_TCP && inRange
		default:
			return e.Protocol == unix.IPPROTO_UDP && inRange
		}
	})
}

func (e evaluator) endpoint(set string) bool {
	protocol := map[uint8]api.Protocol{unix.IPPROTO_TCP: api.TCP, unix.IPPROTO_UDP: api.UDP}[e.Protocol]
	for _, s := range e.Endpoints {
		if s.Name == set {
			return slices.Contains(s.Endpoints, dataplane.Endpoint{Address: netip.AddrPortFrom(e.Destination, e.Port), Protocol: protocol})
		}
	}
	return false
}
