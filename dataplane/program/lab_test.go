package program

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/testenv"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "traffic":
		childMain()
	case "owner":
		ownerMain()
	}
	os.Exit(m.Run())
}

// lab is a cgroup, a bpffs of its own and a client in them.
type lab struct {
	t      *testing.T
	cgroup string
	pins   string
	client *child
}

// newLab makes a lab and has the client own the addresses of the backends.
func newLab(t *testing.T) *lab {
	t.Helper()
	testenv.NeedBPF(t)
	l := &lab{t: t, cgroup: newCgroup(t), pins: filepath.Join(sinktest.BPFFS(t), "weir")}
	l.client = newChild(t, l.cgroup)
	l.client.must(request{Op: "addr", Addresses: []string{
		"10.80.0.11/32", "10.80.0.12/32", "10.80.0.13/32", "10.80.0.14/32", "10.80.0.99/32",
		"fd00::11/128", "fd00::12/128", "fd00::99/128",
	}})
	return l
}

func newCgroup(t *testing.T) string {
	t.Helper()
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "weir-program-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 {
			if err = os.Remove(dir); err == nil || os.IsNotExist(err) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("remove cgroup: %v", err)
	})
	return dir
}

// child is a process that makes traffic.
type child struct {
	t       *testing.T
	command *exec.Cmd
	encoder *json.Encoder
	decoder *json.Decoder
}

func newChild(t *testing.T, cgroup string) *child {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := &child{t: t, command: exec.Command(os.Args[0])}
	// A socket with a time-out is not resumed after a signal, and the runtime
	// preempts goroutines by signals.
	c.command.Env = append(os.Environ(), childVariable+"=traffic", "GODEBUG=asyncpreemptoff=1")
	c.command.Stderr = os.Stderr
	c.command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: unix.SIGKILL,
	}
	in, err := c.command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatalf("start child: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		c.command.Process.Kill()
		c.command.Wait()
	})
	c.encoder, c.decoder = json.NewEncoder(in), json.NewDecoder(out)
	return c
}

func (c *child) send(r request) {
	c.t.Helper()
	if err := c.encoder.Encode(r); err != nil {
		c.t.Fatalf("ask child: %v", err)
	}
}

func (c *child) receive() (results []outcome) {
	c.t.Helper()
	if err := c.decoder.Decode(&results); err != nil {
		c.t.Fatalf("child's answer: %v", err)
	}
	return results
}

func (c *child) do(r request) []outcome {
	c.t.Helper()
	c.send(r)
	return c.receive()
}

// must fails the test when any outcome has an error.
func (c *child) must(r request) []outcome {
	c.t.Helper()
	results := c.do(r)
	for _, o := range results {
		if o.Err != "" {
			c.t.Fatalf("%s %s %s: %s", r.Op, r.Network, r.Target, o.Err)
		}
	}
	return results
}

func (l *lab) options() Options {
	o := Options{PinDir: l.pins, Cgroup: l.cgroup, Sizes: Sizes{Services: 64, Frontends: 128, Backends: 256, Slots: 8192, Clients: 128, Datagrams: 128}}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(l.t.Output(), nil))
	}
	return o
}

func (l *lab) open() *Balancer {
	l.t.Helper()
	b, err := New(l.options())
	if err != nil {
		l.t.Fatalf("New: %v", err)
	}
	l.t.Cleanup(func() { b.Close() })
	return b
}

func set(t *testing.T, b *Balancer, table dataplane.Table) dataplane.Changes {
	t.Helper()
	c, err := b.Set(context.Background(), table)
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return c
}

var ranges = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd77:6569:7200::/112")}

func table(services ...*dataplane.Service) dataplane.Table {
	return dataplane.Table{Ranges: ranges, Services: services}
}

// service makes one with the backends up, a slot each.
func service(name string, protocol api.Protocol, frontend string, backends ...string) *dataplane.Service {
	s := &dataplane.Service{
		Name: name, Protocol: protocol, Balance: api.Random, AffinityBy: api.ByAddress,
		Frontends: []netip.AddrPort{netip.MustParseAddrPort(frontend)},
	}
	for i, b := range backends {
		s.Backends = append(s.Backends, dataplane.Backend{Address: netip.MustParseAddrPort(b), Weight: 1, State: api.Up})
		s.Slots = append(s.Slots, uint32(i))
	}
	return s
}

func copyOf(s *dataplane.Service) *dataplane.Service {
	c := *s
	c.Backends = slices.Clone(s.Backends)
	return &c
}

// serve starts the servers of the backends in the client's namespace.
func (l *lab) serve(services ...*dataplane.Service) {
	l.t.Helper()
	for _, s := range services {
		for _, b := range s.Backends {
			l.client.must(request{Op: "serve", Network: string(s.Protocol), Listen: b.Address})
		}
	}
}

func (l *lab) dial(network, target string, count int) []outcome {
	l.t.Helper()
	return l.client.do(request{Op: "dial", Network: network, Target: netip.MustParseAddrPort(target), Count: count})
}

// spread counts the answers by server and fails on any error.
func spread(t *testing.T, results []outcome) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, o := range results {
		if o.Err != "" {
			t.Fatalf("got %s", o.Err)
		}
		all[o.server()]++
	}
	return all
}
