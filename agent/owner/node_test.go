package owner

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane/link"
)

const childVariable = "WEIR_OWNER_TEST_NODE"

func TestMain(m *testing.M) {
	if who := os.Getenv(childVariable); who != "" {
		if err := edgeNode(who); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var labVIPs = map[Family]netip.Addr{IPv4: netip.MustParseAddr("10.80.0.200"), IPv6: netip.MustParseAddr("fd00::200")}

// edgeNode is the process of an edge node: electors of both families, an
// announcer, and orders on standard input. Who is its number and priority.
func edgeNode(who string) error {
	var n, priority int
	if _, err := fmt.Sscanf(who, "%d/%d", &n, &priority); err != nil {
		return err
	}
	if err := setUpInterface(n); err != nil {
		return err
	}
	announcer, err := link.NewAnnouncer(link.AnnounceOptions{Interface: "eth0", Refresh: 2 * time.Second})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return announcer.Run(ctx) })
	electors, err := startElectors(ctx, group, uint8(priority), announcer)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("started")
	for in.Scan() {
		switch in.Text() {
		case "ready", "not ready":
			for _, e := range electors {
				e.Ready(in.Text() == "ready")
			}
		case "state":
			for _, e := range electors {
				s := e.State()
				fmt.Printf("%d=%s owner=%s reason=%q conflicts=%v %+v; ", e.o.Family, s.Role, s.Owner, s.Reason, announcer.Conflicts(), s.Counters)
			}
			fmt.Println()
		}
	}
	cancel()
	return group.Wait()
}

func setUpInterface(n int) error {
	// Link-local addresses are usable at once.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0); err != nil {
		return err
	}
	for _, c := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "set", "eth0", "up"},
		{"addr", "add", fmt.Sprintf("10.80.0.%d/24", n), "dev", "eth0"},
		{"addr", "add", fmt.Sprintf("fd00::%d/64", n), "dev", "eth0", "nodad"},
	} {
		if out, err := exec.Command("ip", c...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", c, err, out)
		}
	}
	return nil
}

// startElectors starts one for each family, whose changes the announcer follows.
func startElectors(ctx context.Context, group *errgroup.Group, priority uint8, announcer *link.Announcer) (electors []*Elector, err error) {
	var mu sync.Mutex
	owned := map[Family]bool{}
	for family, vip := range labVIPs {
		e, err := New(Options{Interface: "eth0", Family: family, VRID: 7, Priority: priority, Preempt: true, OnRival: announcer.Repeat, OnChange: func(owner bool) {
			mu.Lock()
			defer mu.Unlock()
			owned[family] = owner
			var list []netip.Addr
			for f, vip := range labVIPs {
				if owned[f] {
					list = append(list, vip)
				}
			}
			if err := announcer.Set(list); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}})
		if err != nil {
			return nil, err
		}
		if err := e.SetAddresses([]netip.Addr{vip}); err != nil {
			return nil, err
		}
		electors = append(electors, e)
		group.Go(func() error { return e.Run(ctx) })
	}
	return electors, nil
}

// edge is an edge node's process.
type edge struct {
	t   *testing.T
	mac string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// node starts an edge node of the priority, on a port of its number.
func (l *segmentLab) node(priority int) *edge {
	l.t.Helper()
	l.nodes++
	n := &edge{t: l.t, mac: fmt.Sprintf("02:00:00:00:00:%02x", l.nodes), cmd: exec.Command(os.Args[0])}
	n.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d/%d", childVariable, l.nodes, priority))
	n.cmd.Stderr = os.Stderr
	// Held until its interface is there.
	gate, open, err := os.Pipe()
	must(l.t, err)
	n.cmd.ExtraFiles = []*os.File{gate}
	n.cmd.Path, n.cmd.Args = "/bin/sh", []string{"sh", "-c", `read x <&3; exec "$0"`, os.Args[0]}
	n.cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	n.in, err = n.cmd.StdinPipe()
	must(l.t, err)
	stdout, err := n.cmd.StdoutPipe()
	must(l.t, err)
	n.out = bufio.NewScanner(stdout)
	must(l.t, n.cmd.Start())
	l.t.Cleanup(func() {
		n.in.Close()
		n.cmd.Process.Kill()
		n.cmd.Wait()
	})
	gate.Close()
	l.plug(fmt.Sprintf("port%d", l.nodes), n.mac, netlink.NsPid(n.cmd.Process.Pid))
	fmt.Fprintln(open, "go")
	open.Close()
	if !n.out.Scan() {
		l.t.Fatal("the node does not start")
	}
	n.order("ready")
	return n
}

func (n *edge) order(what string) { fmt.Fprintln(n.in, what) }

func (n *edge) state() string {
	n.t.Helper()
	n.order("state")
	if !n.out.Scan() {
		n.t.Fatal("the node has ended")
	}
	return n.out.Text()
}

// at waits until the node says that it is in the role in both families.
func (n *edge) at(role Role) {
	n.t.Helper()
	eventually(n.t, func() bool {
		s := n.state()
		return strings.Contains(s, "4="+role.String()) && strings.Contains(s, "6="+role.String())
	}, func() string { return fmt.Sprintf("the node is not %s: %s", role, n.state()) })
}
