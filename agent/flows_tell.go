package agent

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/trace"
)

// namesFor is how long names are used until the snapshot is looked at again.
const namesFor = 200 * time.Millisecond

// tcpSYN is the flag of a packet that opens a connection; with tcpACK it answers.
const tcpSYN, tcpACK = 0x02, 0x10

// tell names what an event is about and passes it on to those who want it.
func (w *flowWatch) tell(e trace.Event) {
	names := w.present()
	if names == nil {
		return
	}
	switch {
	case e.Flow != nil:
		w.pass(api.FlowLine{Flow: w.flow(names, e.Flow)})
	case e.Drop != nil:
		d := names.drop(e.Drop)
		w.pass(api.FlowLine{Drop: d})
		opens := d.Protocol == "udp" || d.Protocol == "tcp" && e.Drop.TCPFlags&(tcpSYN|tcpACK) == tcpSYN
		if d.Reason == "NETFILTER_DROP" && opens {
			w.remember(d)
			w.pass(api.FlowLine{Flow: deniedFlow(d)})
		}
	}
}

func (w *flowWatch) pass(line api.FlowLine) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.heard {
		if l.wants(line) {
			w.put(l, line)
		}
	}
}

func keyOfDrop(d *api.Drop) deniedKey {
	return deniedKey{d.Protocol, d.From.Address.Addr(), d.To.Address}
}

// remember keeps a drop for the flow that it leaves without an answer.
func (w *flowWatch) remember(d *api.Drop) {
	if len(w.denied) >= deniedKept {
		clear(w.denied)
	}
	w.denied[keyOfDrop(d)] = d
}

// deniedFlow is the flow that a dropped packet would have opened.
func deniedFlow(d *api.Drop) *api.Flow {
	return &api.Flow{Began: d.Time, Protocol: api.Protocol(d.Protocol), From: d.From, To: d.To, Verdict: api.FlowDenied, Reason: deniedReason(d)}
}

func deniedReason(d *api.Drop) string {
	text := d.Text
	if d.File != "" {
		text += fmt.Sprintf(" (%s:%d)", d.File, d.Line)
	}
	return text
}

// flow names a flow's ends and judges it.
func (w *flowWatch) flow(names *flowNames, f *trace.Flow) *api.Flow {
	here, there := names.local(f.Local), names.end(f.Remote)
	if f.Remote.Addr().IsLoopback() || f.Remote.Addr() == f.Local.Addr() {
		there = names.local(f.Remote)
	}
	here.Process, here.Command = f.Process, f.Command
	if here.Command == "" && here.Process != 0 {
		here.Command = commandOf(here.Process)
	}
	out := &api.Flow{
		Began: f.Began, Protocol: f.Protocol, From: here, To: there, Side: "from", VIP: f.VIP, Service: names.services[f.VIP],
		Open: f.Ended.IsZero(), Sent: f.Sent, Received: f.Received, Retransmits: f.Retransmits, RTT: api.Duration(f.RTT),
	}
	end := f.Ended
	if out.Open {
		end = time.Now()
	}
	out.Duration = api.Duration(max(0, end.Sub(f.Began)))
	if f.Accepted {
		out.From, out.To, out.Side = there, here, "to"
		out.Sent, out.Received = f.Received, f.Sent
	}
	if out.VIP == (netip.AddrPort{}) && names.services[f.Remote] != "" {
		// The balancer refused it, so that it never left the virtual address.
		out.VIP, out.Service = f.Remote, names.services[f.Remote]
	}
	out.Verdict, out.Reason = verdict(f)
	if out.Verdict == api.FlowPending || out.Verdict == api.FlowUnanswered {
		d := w.denied[deniedKey{string(f.Protocol), f.Local.Addr(), f.Remote}]
		if d != nil && time.Since(d.Time) < deniedFor {
			out.Verdict, out.Reason = api.FlowDenied, deniedReason(d)
		}
	}
	return out
}

// present are the names by the snapshot in force. It is looked for now and then,
// not for each event.
func (w *flowWatch) present() *flowNames {
	if w.current == nil || time.Since(w.looked) > namesFor {
		if names, err := w.names(w.current); err == nil {
			w.current, w.looked = names, time.Now()
		}
	}
	return w.current
}

// commandOf is the name of a process that may be gone.
func commandOf(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}
