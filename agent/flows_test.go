package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane/trace"
	"github.com/weirproject/weir/testenv"
	"github.com/weirproject/weir/zones"
)

// heard keeps the lines that a watch has told.
type heard struct {
	mu    sync.Mutex // guards lines
	lines []api.FlowLine
}

func (h *heard) tell(line api.FlowLine) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
	return nil
}

func (h *heard) find(is func(api.FlowLine) bool) *api.FlowLine {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.lines {
		if is(h.lines[i]) {
			return &h.lines[i]
		}
	}
	return nil
}

func (h *heard) flow(to string, v api.FlowVerdict) *api.Flow {
	line := h.find(func(l api.FlowLine) bool {
		return l.Flow != nil && l.Flow.To.Address.String() == to && l.Flow.Verdict == v && !l.Flow.Open
	})
	if line == nil {
		return nil
	}
	return line.Flow
}

// otherHost is a network namespace behind a veth, with the address 203.0.113.9 and
// a route to this one's 10.9.0.1. It gives the start of commands that run there.
func otherHost(t *testing.T) []string {
	t.Helper()
	other := exec.Command("sleep", "100")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	pid := strconv.Itoa(other.Process.Pid)
	for _, line := range []string{
		"ip link add weir-f0 type veth peer name weir-f1 netns " + pid, "ip addr add 203.0.113.1/24 dev weir-f0", "ip addr add 10.9.0.1/32 dev lo", "ip link set weir-f0 up",
		"nsenter -n -t " + pid + " ip addr add 203.0.113.9/24 dev weir-f1", "nsenter -n -t " + pid + " ip link set weir-f1 up", "nsenter -n -t " + pid + " ip route add default via 203.0.113.1",
	} {
		command(t, strings.Fields(line)...)
	}
	return []string{"nsenter", "-n", "-t", pid}
}

func TestFlowsAndDropsAreToldWithNamesAndRules(t *testing.T) {
	testenv.NeedBPF(t)
	if !ownNetwork(t) {
		return
	}
	host := otherHost(t)
	r := newRig(t)
	r.write("policy.yaml", rigPolicy)
	r.write("web.yaml", strings.ReplaceAll(web, "10.0.0.1:80", "10.9.0.1:22"))
	r.start()
	ctx, stop := context.WithCancel(t.Context())
	var flows, drops heard
	ended := make(chan error, 2)
	go func() { ended <- r.client.Flows(ctx, api.FlowFilter{}, flows.tell) }()
	go func() { ended <- r.client.Drops(ctx, api.FlowFilter{To: []string{"node=a1"}, Port: 80}, drops.tell) }()
	r.await("tracing", func() bool { return r.agent.flows.watching() == 2 })
	l, err := net.Listen("tcp", "10.9.0.1:22")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func(port string) {
		_ = exec.Command(host[0], append(host[1:], "timeout", "1", "bash", "-c", ": < /dev/tcp/10.9.0.1/"+port)...).Run()
	}
	r.await("the flow that is allowed", func() bool {
		connect("22")
		return flows.flow("10.9.0.1:22", api.FlowForwarded) != nil
	})
	f := flows.flow("10.9.0.1:22", api.FlowForwarded)
	if f.From.Address.Addr().String() != "203.0.113.9" || f.To.Nodes[0] != "a1" || f.To.Apps[0] != "/shop/web" || f.To.Zones[0] != "private" || f.Duration <= 0 {
		t.Errorf("got %+v", *f)
	}
	r.await("the drop", func() bool {
		connect("80")
		return flows.flow("10.9.0.1:80", api.FlowDenied) != nil && drops.find(func(l api.FlowLine) bool { return l.Drop != nil }) != nil
	})
	d := drops.find(func(l api.FlowLine) bool { return l.Drop != nil }).Drop
	if d.Reason != "NETFILTER_DROP" || d.Interface != "weir-f0" || !strings.HasSuffix(d.File, "policy.yaml") || d.Line != 5 || !strings.Contains(d.Text, "no rule of the zones allows it") || !strings.Contains(d.Advice, "weir zone explain 203.0.113.9 10.9.0.1 tcp/80") || d.To.Nodes[0] != "a1" {
		t.Errorf("got %+v", *d)
	}
	if f := flows.flow("10.9.0.1:80", api.FlowDenied); !strings.Contains(f.Reason, "policy.yaml:5") {
		t.Errorf("got %+v", *f)
	}
	stop()
	if err := errors.Join(<-ended, <-ended); err != nil {
		t.Error(err)
	}
	r.await("the end of tracing", func() bool { return r.agent.flows.watching() == 0 && r.agent.flows.idle() })
}

// fakeTracer tells what the test gives it.
type fakeTracer struct {
	events chan trace.Event
	closed atomic.Bool
}

func (f *fakeTracer) Run(ctx context.Context, tell func(trace.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, more := <-f.events:
			if !more {
				return errors.New("the kernel is gone")
			}
			tell(e)
		}
	}
}
func (f *fakeTracer) Counts() (trace.Counts, error) { return trace.Counts{Skipped: 5, Lost: 2}, nil }
func (f *fakeTracer) Missing() []string             { return []string{"IPv7"} }
func (f *fakeTracer) Close() error                  { f.closed.Store(true); return nil }

func fakeWatch(s *api.Snapshot) (w *flowWatch, opened *[]*fakeTracer) {
	opened = &[]*fakeTracer{}
	names := newFlowNames(s, zones.Bind(s.Policy, zones.StateOf(s), time.Now()))
	return &flowWatch{
		log: slog.New(slog.DiscardHandler), heard: map[*flowListener]bool{}, denied: map[deniedKey]*api.Drop{},
		open: func() (tracer, error) {
			f := &fakeTracer{events: make(chan trace.Event)}
			*opened = append(*opened, f)
			return f, nil
		},
		names: func(*flowNames) (*flowNames, error) { return names, nil },
	}, opened
}

func everyLine(api.FlowLine) bool { return true }

func TestTheKernelIsTracedWhileSomebodyWatches(t *testing.T) {
	w, opened := fakeWatch(&api.Snapshot{Node: api.Node{Name: "a1"}})
	first, stopFirst, err := w.follow(everyLine)
	if err != nil {
		t.Fatal(err)
	}
	second, stopSecond, err := w.follow(func(l api.FlowLine) bool { return l.Drop != nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range []<-chan api.FlowLine{first, second} {
		if line := <-lines; len(line.Missing) != 1 {
			t.Errorf("got %+v first, want what is missing", line)
		}
	}
	if len(*opened) != 1 {
		t.Fatalf("opened %d times, want once", len(*opened))
	}
	at := netip.MustParseAddrPort("127.0.0.1:80")
	(*opened)[0].events <- trace.Event{Flow: &trace.Flow{Protocol: api.TCP, Local: at, Remote: at, Began: time.Now()}}
	if line := <-first; line.Flow == nil || line.Flow.Verdict != api.FlowPending || line.Flow.From.Nodes[0] != "a1" {
		t.Errorf("got %+v", line)
	}
	for line := range second { // the flow is not for it, the counters are
		if line.Lost != nil {
			if *line.Lost != (api.FlowsLost{Flows: 5, Ring: 2}) {
				t.Errorf("got %+v", *line.Lost)
			}
			break
		}
		t.Errorf("got %+v", line)
	}
	stopFirst()
	if (*opened)[0].closed.Load() {
		t.Error("detached while one still watches")
	}
	stopSecond()
	if !(*opened)[0].closed.Load() || !w.idle() {
		t.Error("attached though nobody watches")
	}
	// A failure ends those who watch, and the next one begins anew.
	third, stopThird, err := w.follow(everyLine)
	if err != nil {
		t.Fatal(err)
	}
	close((*opened)[1].events)
	for range third {
	}
	stopThird()
	fourth, stopFourth, err := w.follow(everyLine)
	if err != nil || len(*opened) != 3 {
		t.Fatalf("after a failure: opened %d times, %v", len(*opened), err)
	}
	w.close()
	for range fourth {
	}
	stopFourth()
	if _, _, err := w.follow(everyLine); !errors.Is(err, errClosing) || !(*opened)[2].closed.Load() {
		t.Errorf("after the end: got %v", err)
	}
}

func TestAVerdictSaysWhatBecameOfAFlow(t *testing.T) {
	now := time.Now()
	vip := netip.MustParseAddrPort("198.18.0.10:80")
	for what, c := range map[string]struct {
		flow trace.Flow
		want api.FlowVerdict
		why  string
	}{
		"established":    {trace.Flow{Protocol: api.TCP, Began: now, Opened: now, Ended: now, Fault: syscall.ECONNRESET}, api.FlowForwarded, ""},
		"no route":       {trace.Flow{Protocol: api.TCP, Began: now, Ended: now, Unsent: true}, api.FlowUnsent, "no route"},
		"no backend":     {trace.Flow{Protocol: api.TCP, Began: now, Ended: now, Fault: syscall.ECONNREFUSED}, api.FlowRefused, "balancer"},
		"nobody listens": {trace.Flow{Protocol: api.TCP, Began: now, Ended: now.Add(1), Fault: syscall.ECONNREFUSED, VIP: vip}, api.FlowRefused, "nobody listens there (a backend of 198.18.0.10:80)"},
		"hangs":          {trace.Flow{Protocol: api.TCP, Began: now, Retransmits: 2}, api.FlowPending, "sent 3 times"},
		"timed out":      {trace.Flow{Protocol: api.TCP, Began: now, Ended: now.Add(1), Fault: syscall.ETIMEDOUT}, api.FlowUnanswered, "timed out"},
		"gave up":        {trace.Flow{Protocol: api.TCP, Began: now, Ended: now.Add(1)}, api.FlowUnanswered, "gave up"},
		"forbidden":      {trace.Flow{Protocol: api.TCP, Began: now, Ended: now, Fault: syscall.EPERM}, api.FlowDenied, "cgroup"},
		"silent":         {trace.Flow{Protocol: api.UDP, Began: now, Ended: now.Add(1)}, api.FlowUnanswered, "nothing came back"},
		"not answering":  {trace.Flow{Protocol: api.UDP, Began: now, Accepted: true}, api.FlowUnanswered, "has not answered"},
	} {
		if got, why := verdict(&c.flow); got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %s, %q", what, got, why)
		}
	}
}

func TestEndsOfFlowsHaveNames(t *testing.T) {
	addr := netip.MustParseAddr
	s := &api.Snapshot{
		Node:  api.Node{Name: "a1"},
		Nodes: []api.Node{{Name: "a1", Addresses: []netip.Addr{addr("10.9.0.1")}}},
		Tasks: []api.Task{
			{ID: "web.1", App: "/web", Node: "a1", State: api.TaskRunning, Addresses: []netip.Addr{addr("172.16.0.5")}},
			{ID: "db.1", App: "/db", Node: "a1", State: api.TaskRunning, Ports: []api.TaskPort{{HostPort: 5432}}},
			{ID: "old.1", App: "/old", Node: "a1", State: api.TaskFinished, Ports: []api.TaskPort{{HostPort: 5432}}},
		},
	}
	n := newFlowNames(s, zones.Bind(nil, zones.StateOf(s), time.Now()))
	for at, want := range map[string]string{"172.16.0.5:40000": "web.1", "10.9.0.1:5432": "db.1", "10.9.0.1:80": "", "203.0.113.9:1": ""} {
		if got := strings.Join(n.end(netip.MustParseAddrPort(at)).Tasks, " "); got != want {
			t.Errorf("%s: got the task %q, want %q", at, got, want)
		}
	}
	if got := n.local(netip.AddrPortFrom(netip.IPv4Unspecified(), 0)); got.Address.IsValid() || got.Nodes[0] != "a1" {
		t.Errorf("a socket that never sent: got %+v", got)
	}
	if got := commandOf(os.Getpid()); got == "" || commandOf(1<<30) != "" {
		t.Errorf("the name of this process: got %q", got)
	}
}

// watching counts those who watch.
func (w *flowWatch) watching() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.heard)
}

// idle tells that nothing is traced.
func (w *flowWatch) idle() bool {
	w.switching.Lock()
	defer w.switching.Unlock()
	return w.stop == nil
}
