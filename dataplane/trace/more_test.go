package trace

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
)

func TestDatagramsAreOneFlow(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	for _, address := range []string{"127.0.0.1:5353", "[::1]:5353"} {
		server, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		client, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for range 3 {
			if _, err := client.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			_, from, err := server.ReadFrom(make([]byte, 200))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.WriteTo(make([]byte, 50), from); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 200)); err != nil {
				t.Fatal(err)
			}
		}
		out := w.flow("the client's end", func(f *Flow) bool { return f.Remote.String() == address && !f.Ended.IsZero() })
		if out.Protocol != api.UDP || out.Accepted || out.Sent != 300 || out.Received != 150 || out.Process != os.Getpid() || out.Local != netip.MustParseAddrPort(client.LocalAddr().String()) || out.Opened.IsZero() {
			t.Errorf("the client's end: got %+v", *out)
		}
		in := w.flow("the server's end", func(f *Flow) bool { return f.Local.String() == address && !f.Ended.IsZero() })
		if !in.Accepted || in.Sent != 150 || in.Received != 300 || in.Remote != out.Local {
			t.Errorf("the server's end: got %+v", *in)
		}
	}
}

// What the packet filter drops is told with its reason, and the flow is told while
// it hangs.
func TestAFlowThatIsDroppedIsToldWhileItHangs(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	command(t, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp dport 8080 drop")
	w := watch(t, Options{})
	echo(t, "127.0.0.1:8080")
	go func() {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:8080", 10*time.Second); err == nil {
			c.Close()
		}
	}()
	d := w.drop("the packet", func(d *Drop) bool { return d.Destination.String() == "127.0.0.1:8080" })
	if d.Reason != "NETFILTER_DROP" || d.Protocol != syscall.IPPROTO_TCP || d.Source.Port() == 0 || d.Length == 0 {
		t.Errorf("got %+v", *d)
	}
	f := w.flow("the hanging flow", func(f *Flow) bool { return f.Remote.String() == "127.0.0.1:8080" })
	if !f.Ended.IsZero() || !f.Opened.IsZero() || f.Process != os.Getpid() || f.Local != d.Source && f.Local.Port() != 0 {
		t.Errorf("got %+v", *f)
	}
	c, err := w.Counts()
	if err != nil || c.Drops["NETFILTER_DROP"] == 0 || c.Told == 0 {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestRetransmitsAreCounted(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	l := echo(t, "127.0.0.1:8080")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// No data gets through until the rule is gone.
	command(t, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in tcp dport 8080 tcp flags & psh == psh drop")
	time.AfterFunc(500*time.Millisecond, func() { command(t, "nft", "delete table inet t") })
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	local := c.LocalAddr().String()
	c.Close()
	f := w.flow("the connection", func(f *Flow) bool { return f.Local.String() == local && !f.Ended.IsZero() })
	if f.Retransmits == 0 || f.Sent != 5 {
		t.Errorf("got %+v", *f)
	}
}

func TestForwardedPacketsWithoutARouteAreTold(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	// A packet from outside whose destination this host has no route to.
	command(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	pid := strconv.Itoa(other.Process.Pid)
	command(t, "ip", "link", "add", "weir-t0", "type", "veth", "peer", "name", "weir-t1", "netns", pid)
	command(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "weir-t0")
	command(t, "ip", "link", "set", "weir-t0", "up")
	inside := func(argv ...string) { command(t, append([]string{"nsenter", "-n", "-t", pid}, argv...)...) }
	inside("ip", "addr", "add", "10.9.0.2/24", "dev", "weir-t1")
	inside("ip", "link", "set", "weir-t1", "up")
	inside("ip", "route", "add", "default", "via", "10.9.0.1")
	inside("bash", "-c", "for i in 1 2 3; do echo > /dev/udp/203.0.113.5/99; sleep 0.2; done")
	d := w.drop("the packet", func(d *Drop) bool { return d.Destination.String() == "203.0.113.5:99" })
	if d.Reason != "IP_INNOROUTES" || d.Interface != "weir-t0" || d.Protocol != syscall.IPPROTO_UDP {
		t.Errorf("got %+v", *d)
	}
}

func TestWhatIsTooMuchIsCounted(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{Flows: 1, Drops: 1})
	l := echo(t, "127.0.0.1:8080")
	for range 200 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if c, err := net.Dial("tcp", "127.0.0.1:9"); err == nil {
			c.Close()
		}
	}
	w.flow("a flow", func(*Flow) bool { return true })
	c, err := w.Counts()
	if err != nil || c.Skipped == 0 || c.Unlisted == 0 || c.Told == 0 || c.Drops["NO_SOCKET"] < 200 {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestNothingStaysAttached(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	var ids []link.ID
	for _, l := range w.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	if len(ids) != len(hooks) {
		t.Errorf("got %d programs attached, want %d", len(ids), len(hooks))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if l, err := link.NewFromID(id); err == nil {
			t.Errorf("the link %d stays", id)
			l.Close()
		}
	}
}

func TestReasonsAreTheKernelsWords(t *testing.T) {
	r, err := readReasons()
	if err != nil {
		t.Skip(err)
	}
	marks := r.everyday()
	for number, name := range r {
		if name == "NETFILTER_DROP" && (marks[number] != 0 || r.name(number) != name) || name == "OTHERHOST" && marks[number] != 1 {
			t.Errorf("%s is marked %d", name, marks[number])
		}
	}
	if got := r.name(0x20001); got != "REASON_0x20001" {
		t.Errorf("got %s", got)
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	for want, o := range map[string]Options{"Cgroup": {}, "Flows": {Cgroup: "/", Flows: -1}, "Drops": {Cgroup: "/", Drops: 1e9}} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}
