package trace

import (
	"bytes"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

// Flow is one end of a connection, or of an exchange of datagrams, as a socket of
// this machine has it: a connection between two of its processes is two flows.
type Flow struct {
	Protocol api.Protocol // tcp or udp
	// Local and Remote are the socket's ends; Remote is the backend where the
	// socket was connected to VIP, which else is not valid.
	Local, Remote, VIP netip.AddrPort
	// Accepted tells that the other side began it.
	Accepted bool
	Began    time.Time
	// Opened is when TCP was established, or the first datagram came back; zero:
	// never (yet).
	Opened time.Time
	Ended  time.Time // zero while it is open
	// Sent and Received bytes, without headers and repetitions; of TCP they are
	// known at the end only.
	Sent, Received uint64
	Retransmits    int           // segments
	RTT            time.Duration // smoothed; 0: unknown
	Fault          syscall.Errno // that ended it, or the last of UDP; 0: none
	// Unsent: connect() failed before a packet was made: there was no route, or no
	// source port left.
	Unsent  bool
	Netns   uint32 // inode of the network namespace; 0: not known, as of UDP
	Process int    // 0: unknown, as on the accepting side until it closes
	Command string
}

// Drop is a packet that the kernel threw away.
type Drop struct {
	Time     time.Time
	Reason   string // the kernel's word, such as NETFILTER_DROP
	Ether    uint16 // protocol above the link, such as 0x0800
	Protocol uint8  // above IP
	TCPFlags uint8
	// Source and Destination; not valid where the packet had no such header
	// (yet), and without port where it had none.
	Source, Destination netip.AddrPort
	Length              int // bytes
	Netns               uint32
	Interface           string // in that namespace; empty: none
	Process             int    // of the socket that sent it; 0: unknown
	Command             string
}

// Event is one of both.
type Event struct {
	Flow *Flow
	Drop *Drop
}

// clock turns the kernel's time since boot into a time of day.
type clock struct{ boot time.Time }

func newClock() clock {
	var now unix.Timespec
	// CLOCK_MONOTONIC is always there.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return clock{time.Now().Round(0).Add(-time.Duration(now.Nano()))}
}

func (c clock) time(ns uint64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return c.boot.Add(time.Duration(ns))
}

func (c clock) flow(f *bpf.TraceFlow) *Flow {
	protocol := api.TCP
	if f.Protocol == unix.IPPROTO_UDP {
		protocol = api.UDP
	}
	out := &Flow{
		Protocol: protocol, Local: end(f.Local, f.LocalPortBe), Remote: end(f.Remote, f.RemotePortBe),
		Accepted: f.Flags&bpf.TraceFlowFlagFLOW_ACCEPTED != 0,
		Began:    c.time(f.BeganNs), Opened: c.time(f.OpenedNs), Ended: c.time(f.EndedNs),
		Sent: f.Sent, Received: f.Received, Retransmits: int(f.Retransmits), RTT: time.Duration(f.RttUs) * time.Microsecond,
		Fault: syscall.Errno(f.Fault), Netns: f.Netns, Process: int(f.Pid), Command: text(f.Command[:]),
	}
	if f.VipPortBe != 0 {
		out.VIP = end(f.Vip, f.VipPortBe)
	}
	return out
}

func (t *Tracer) drop(d *bpf.TraceDropEvent) *Drop {
	out := &Drop{
		Time: t.clock.time(d.TimeNs), Reason: t.reasons.name(d.Reason), Ether: inet.Port(d.EtherBe), Protocol: d.Protocol, TCPFlags: d.TcpFlags,
		Length: int(d.Length), Netns: d.Netns, Interface: text(d.Interface[:]), Process: int(d.Pid), Command: text(d.Command[:]),
	}
	if d.Source != (bpf.TraceAddress{}) || d.Destination != (bpf.TraceAddress{}) {
		out.Source, out.Destination = end(d.Source, d.SourcePortBe), end(d.Destination, d.DestinationPortBe)
	}
	return out
}

func end(a bpf.TraceAddress, portBe uint16) netip.AddrPort {
	return netip.AddrPortFrom(inet.Address(a.WordBe), inet.Port(portBe))
}

// text ends with the first zero byte.
func text(raw []byte) string {
	before, _, _ := bytes.Cut(raw, []byte{0})
	return string(before)
}
