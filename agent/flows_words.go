package agent

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/trace"
	"github.com/weirproject/weir/zones"
)

// dropWords say a reason of the kernel in words, and what to do.
var dropWords = map[string][2]string{
	"NO_SOCKET":           {"nobody listens on that port", "start the service, or look at what it listens on: ss -ltnp, ss -lunp"},
	"NETFILTER_DROP":      {"the packet filter dropped it", ""},
	"IP_OUTNOROUTES":      {"there is no route to it", "ip route get the destination; a node's route to a container network is Weir's: weir status"},
	"IP_INNOROUTES":       {"there is no route on from here, or none back", "ip route get the destination, and check net.ipv4.ip_forward"},
	"IP_INADDRERRORS":     {"there is no route on from here", "ip route get the destination, and check net.ipv4.ip_forward"},
	"IP_RPFILTER":         {"it came in where no answer would go out (reverse path filter)", "sysctl net.ipv4.conf.all.rp_filter=2, or mend the route back"},
	"IP_LOCAL_SOURCE":     {"it has an address of this host as its source, and comes from outside", "look for an address that two hosts have"},
	"SOCKET_RCVBUFF":      {"the socket's buffer is full: the process reads too slowly", "look at what the process does; raise net.core.rmem_max and its SO_RCVBUF"},
	"PROTO_MEM":           {"the kernel's memory for this protocol is used up", "look at net.ipv4.tcp_mem, net.ipv4.udp_mem and at what holds buffers: ss -m"},
	"SOCKET_BACKLOG":      {"the socket's backlog is full: the process is too slow", "look at what the process does"},
	"TCP_LISTEN_OVERFLOW": {"the queue of connections to accept is full", "the process accepts too slowly; raise its backlog and net.core.somaxconn"},
	"TCP_CSUM":            {"the checksum of TCP is wrong", "switch checksum offload off on the way: ethtool -K IF tx off"},
	"UDP_CSUM":            {"the checksum of UDP is wrong", "switch checksum offload off on the way: ethtool -K IF tx off"},
	"IP_CSUM":             {"the checksum of IP is wrong", "look for a broken link or driver: ip -s link"},
	"SKB_CSUM":            {"the checksum is wrong", "switch checksum offload off on the way: ethtool -K IF tx off"},
	"PKT_TOO_BIG":         {"it is larger than the MTU on the way, and may not be broken up", "let ICMP \"fragmentation needed\" pass, or lower the MTU"},
	"NEIGH_FAILED":        {"nobody answers for the next hop's address (ARP, NDP)", "is that host up, and in this network? ip neigh"},
	"NEIGH_QUEUEFULL":     {"too much waits for the next hop's address (ARP, NDP)", "is that host up, and in this network? ip neigh"},
	"QDISC_DROP":          {"the interface's queue is full, or shaped", "tc -s qdisc"},
	"QDISC_OVERLIMIT":     {"the interface's queue is full, or shaped", "tc -s qdisc"},
	"CPU_BACKLOG":         {"packets come faster than the CPU takes them", "raise net.core.netdev_max_backlog, spread the interrupts"},
	"FULL_RING":           {"the interface's ring is full", "ethtool -G IF, or a slow container behind a veth"},
	"NOMEM":               {"the kernel is out of memory", "free memory"},
	"XDP":                 {"an XDP program dropped it", "ip link shows which; Weir's edge counts its own: weir status"},
	"TC_INGRESS":          {"a tc program dropped it", "tc filter show, bpftool net"},
	"TC_EGRESS":           {"a tc program dropped it", "tc filter show, bpftool net"},
	"BPF_CGROUP_EGRESS":   {"a program at the process's cgroup dropped it", "bpftool cgroup tree"},
	"SOCKET_FILTER":       {"a filter on the socket dropped it", ""},
	"TCP_CLOSE":           {"its connection is closed already", ""},
	"IP_NOPROTO":          {"nobody takes this protocol", ""},
	"UNHANDLED_PROTO":     {"nobody takes this protocol", ""},
	"DEV_READY":           {"the interface is down", "ip link set IF up"},
	"FRAG_REASM_TIMEOUT":  {"a fragment never came", "look for loss, or for an MTU that is too large"},
	"TCP_ABORT_ON_DATA":   {"data came for a socket that its process had closed", ""},
	"IPV6DISABLED":        {"IPv6 is switched off there", "sysctl net.ipv6.conf.IF.disable_ipv6"},
	"NOT_SPECIFIED":       {"the kernel does not say why", ""},
}

// drop says in words what was dropped, and by which rule of the zones.
func (n *flowNames) drop(d *trace.Drop) *api.Drop {
	out := &api.Drop{
		Time: d.Time, Reason: d.Reason, Interface: d.Interface, Namespace: d.Netns, Length: d.Length, Protocol: protocolName(d.Protocol),
		From: n.end(d.Source), To: n.end(d.Destination),
	}
	if !d.Source.IsValid() {
		out.Protocol = etherName(d.Ether)
	}
	out.From.Process, out.From.Command = d.Process, d.Command
	words, known := dropWords[d.Reason]
	if !known {
		words[0] = strings.ToLower(strings.ReplaceAll(d.Reason, "_", " "))
	}
	out.Text, out.Advice = words[0], words[1]
	if d.Reason == "NETFILTER_DROP" && d.Source.IsValid() {
		n.judge(out)
	}
	return out
}

func etherName(number uint16) string {
	switch number {
	case 0x0800:
		return "ip"
	case 0x0806:
		return "arp"
	case 0x86dd:
		return "ipv6"
	}
	return fmt.Sprintf("ether/%#04x", number)
}

// judge says which rule of ours has dropped it, if one has.
func (n *flowNames) judge(d *api.Drop) {
	foreign := "no rule of Weir's drops it: look for other tables and chains with nft list ruleset"
	if n.snapshot.Policy == nil {
		d.Text, d.Advice = "the packet filter dropped it, and Weir has no policy here", foreign
		return
	}
	port := api.PortRange{Protocol: d.Protocol, First: d.To.Address.Port(), Last: d.To.Address.Port()}
	decision := n.view.Decide(zones.Packet{From: d.From.Address.Addr(), To: d.To.Address.Addr(), Port: port})
	if decision.Verdict == api.Allow && decision.Unjudged {
		decision = n.view.Decide(zones.Packet{From: d.From.Address.Addr(), To: d.To.Address.Addr(), Port: port, Hook: zones.Output})
	}
	if decision.Verdict == api.Allow {
		d.Text, d.Advice = "the packet filter dropped it, though the zones allow it", foreign
		return
	}
	d.Rule = decision.Rule
	question := fmt.Sprintf("weir zone explain %s %s %s/%d", d.From.Address.Addr(), d.To.Address.Addr(), d.Protocol, d.To.Address.Port())
	d.Text, d.Advice = "no rule of the zones allows it, and what no rule allows is closed", question+" says more; a rule that allows it goes into the policy"
	if d.Rule != "" {
		d.Text = "the zones deny it by " + d.Rule
	}
	field := decision.Field
	if field == "" {
		field = "rules"
	}
	if n.place != nil {
		d.File, d.Line = n.place(field)
	}
}

// verdict on a flow, with its reason in words.
func verdict(f *trace.Flow) (api.FlowVerdict, string) {
	through := ""
	if f.VIP.IsValid() {
		through = " (a backend of " + f.VIP.String() + ")"
	}
	switch {
	case f.Unsent:
		return api.FlowUnsent, "no packet was sent: there is no route to it, or no source port is left"
	case !f.Opened.IsZero() || f.Accepted && f.Sent > 0:
		return api.FlowForwarded, ""
	case f.Fault == syscall.ECONNREFUSED && f.Began.Equal(f.Ended):
		return api.FlowRefused, "the balancer refused it: the VIP has no backend that is up, or does not serve this port (weir vip explain)"
	case f.Fault == syscall.ECONNREFUSED || f.Fault == syscall.ECONNRESET:
		return api.FlowRefused, "nobody listens there" + through
	case f.Fault == syscall.EPERM || f.Fault == syscall.EACCES:
		return api.FlowDenied, "a program at its cgroup, or the packet filter, forbids it"
	case f.Ended.IsZero() && f.Protocol == api.TCP:
		return api.FlowPending, fmt.Sprintf("no answer so far, sent %d times%s", f.Retransmits+1, through)
	case f.Protocol == api.UDP:
		if f.Accepted {
			return api.FlowUnanswered, "the process has not answered"
		}
		return api.FlowUnanswered, "nothing came back" + through
	case f.Fault != 0:
		return api.FlowUnanswered, f.Fault.Error() + through
	}
	return api.FlowUnanswered, "the process gave up before an answer came" + through
}
