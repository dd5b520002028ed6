package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FlowVerdict is what has become of a flow.
type FlowVerdict string

// The verdicts.
const (
	FlowForwarded  FlowVerdict = "forwarded"  // it was established, or answered
	FlowPending    FlowVerdict = "pending"    // nobody has answered so far
	FlowRefused    FlowVerdict = "refused"    // the other side, or the balancer, said no
	FlowUnanswered FlowVerdict = "unanswered" // it ended without an answer
	FlowUnsent     FlowVerdict = "unsent"     // it failed before a packet was sent
	FlowDenied     FlowVerdict = "denied"     // the packet filter dropped it
)

// flowVerdicts are all of them.
var flowVerdicts = []FlowVerdict{FlowForwarded, FlowPending, FlowRefused, FlowUnanswered, FlowUnsent, FlowDenied}

// Flow is a TCP connection, or an exchange of datagrams, as one of its sockets has
// it: between two processes of a node it is told twice, once of each side.
type Flow struct {
	Began    time.Time `json:"began"`
	Protocol Protocol  `json:"protocol"` // tcp or udp
	// From began it, To is whom it reached: the backend, where it went through a
	// VIP, whose service is Service.
	From    FlowEnd        `json:"from"`
	To      FlowEnd        `json:"to"`
	VIP     netip.AddrPort `json:"vip,omitzero"`
	Service string         `json:"service,omitempty"`
	// Side of the socket that it is told of: from or to; empty for a packet that
	// the packet filter dropped.
	Side    string      `json:"side,omitempty"`
	Verdict FlowVerdict `json:"verdict"`
	// Reason of a verdict that is not forwarded, in words.
	Reason string `json:"reason,omitempty"`
	// Open: it has not ended; it is told again when it has.
	Open bool `json:"open,omitempty"`
	// Duration until its end, or until now.
	Duration Duration `json:"duration,omitzero"`
	// Sent by From and Received by it, in bytes without headers; of TCP they are
	// known at the end only.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	// Retransmits of this side, in segments, and its smoothed round trip.
	Retransmits int      `json:"retransmits,omitempty"`
	RTT         Duration `json:"rtt,omitzero"`
}

// FlowEnd is one end of a flow, with whom it belongs to.
type FlowEnd struct {
	Address netip.AddrPort `json:"address"` // port 0: none
	ZoneIdentity
	Tasks []string `json:"tasks,omitempty"`
	// Process that has the socket, and Command its name; 0: it is not of this
	// node, or not known yet.
	Process int    `json:"process,omitempty"`
	Command string `json:"command,omitempty"`
}

// Drop is a packet that the kernel threw away.
type Drop struct {
	Time time.Time `json:"time"`
	// Reason is the kernel's word for it, such as NETFILTER_DROP; Text says it in
	// words, and Advice what to do.
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
	// Rule of the zones that dropped it, and where it stands.
	Rule string `json:"rule,omitempty"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Interface in its network namespace, which has the number Namespace.
	Interface string  `json:"interface,omitempty"`
	Namespace uint32  `json:"namespace,omitempty"`
	Protocol  string  `json:"protocol"`
	From      FlowEnd `json:"from"`
	To        FlowEnd `json:"to"`
	Length    int     `json:"length"` // bytes
}

// FlowLine is what the node tells those who watch: one of its fields.
type FlowLine struct {
	Flow *Flow `json:"flow,omitempty"`
	Drop *Drop `json:"drop,omitempty"`
	// Lost is told when it has changed.
	Lost *FlowsLost `json:"lost,omitempty"`
	// Missing is told first: what this kernel does not show.
	Missing []string `json:"missing,omitempty"`
}

// FlowsLost are events that were not told, since the node has begun to watch.
type FlowsLost struct {
	Flows  uint64 `json:"flows"`  // too many at a time
	Drops  uint64 `json:"drops"`  // too many at a time
	Ring   uint64 `json:"ring"`   // events for which the kernel had no room
	Reader uint64 `json:"reader"` // lines that who asked did not read in time
}

// FlowFilter picks flows and drops; the zero value takes all.
type FlowFilter struct {
	// From and To are conditions such as app=web, zone=private, node=a1, task=ID,
	// process=nginx or a pid, address=10.0.0.0/8. All of them must hold.
	From, To []string
	Verdict  FlowVerdict
	// VIP is a service's name (web.shop), or its address with or without a port.
	VIP string
	// Port of the side that it goes to, or of the VIP; 0: any.
	Port     uint16
	Protocol Protocol
}

// endKeys are the keys of conditions on an end.
var endKeys = []string{"app", "zone", "node", "task", "process", "address"}

// Validate names the field that is wrong.
func (f FlowFilter) Validate() error {
	for field, all := range map[string][]string{"from": f.From, "to": f.To} {
		for _, condition := range all {
			key, value, ok := strings.Cut(condition, "=")
			if !ok || value == "" || !slices.Contains(endKeys, key) {
				return fmt.Errorf("%s: %q is not of the form KEY=VALUE with a key of %s", field, condition, strings.Join(endKeys, ", "))
			}
			if key == "address" {
				if _, err := parseNetwork(value); err != nil {
					return fmt.Errorf("%s: %q is neither an address nor a network", field, value)
				}
			}
		}
	}
	if f.Verdict != "" && !slices.Contains(flowVerdicts, f.Verdict) {
		return fmt.Errorf("verdict: %q is none of %v", f.Verdict, flowVerdicts)
	}
	if f.Protocol != "" && f.Protocol != TCP && f.Protocol != UDP {
		return fmt.Errorf("protocol: %q is neither tcp nor udp", f.Protocol)
	}
	return nil
}

// Flow tells whether the flow is picked.
func (f FlowFilter) Flow(flow *Flow) bool {
	return meets(f.From, flow.From) && meets(f.To, flow.To) &&
		(f.Verdict == "" || f.Verdict == flow.Verdict) && (f.Protocol == "" || f.Protocol == flow.Protocol) &&
		(f.Port == 0 || f.Port == flow.To.Address.Port() || f.Port == flow.VIP.Port()) && f.isVIP(flow)
}

// Drop tells whether the drop is picked, by its ends, port and protocol.
func (f FlowFilter) Drop(d *Drop) bool {
	return meets(f.From, d.From) && meets(f.To, d.To) &&
		(f.Protocol == "" || string(f.Protocol) == d.Protocol) && (f.Port == 0 || f.Port == d.To.Address.Port())
}

func (f FlowFilter) isVIP(flow *Flow) bool {
	if f.VIP == "" {
		return true
	}
	return flow.VIP.IsValid() && (f.VIP == flow.VIP.String() || f.VIP == flow.VIP.Addr().String()) ||
		flow.Service != "" && (f.VIP == flow.Service || f.VIP+"."+DefaultNamespace == flow.Service)
}

func meets(conditions []string, e FlowEnd) bool {
	for _, condition := range conditions {
		key, value, _ := strings.Cut(condition, "=")
		if !e.is(key, value) {
			return false
		}
	}
	return true
}

func (e FlowEnd) is(key, value string) bool {
	switch key {
	case "app":
		same := func(app string) bool { return strings.TrimPrefix(app, "/") == strings.TrimPrefix(value, "/") }
		return slices.ContainsFunc(e.Apps, same)
	case "zone":
		return slices.Contains(e.Zones, value)
	case "node":
		return slices.Contains(e.Nodes, value)
	case "task":
		return slices.Contains(e.Tasks, value)
	case "process":
		return e.Command == value || e.Process != 0 && strconv.Itoa(e.Process) == value
	case "address":
		network, err := parseNetwork(value)
		return err == nil && network.Contains(e.Address.Addr().Unmap())
	}
	return false
}

func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}
