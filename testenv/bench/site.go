package bench

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/weirproject/weir/testenv"
	"github.com/weirproject/weir/testenv/bench/load"
)

// site is where it happens: hosts for the clients, a router and a server,
// joined by veth pairs without a bridge between.
type site struct {
	lab     *testenv.Lab
	server  *load.Process
	clients []*client
	log     *slog.Logger
}

// client is a host that makes traffic, in a cgroup of its own.
type client struct {
	host    string
	lab     *testenv.Lab
	traffic *load.Process
	cgroup  string // path of its cgroup
	pins    string // folder in its bpffs
	undo    []func()
}

const (
	routerHost = "router"
	serverHost = "server"
)

// backendNet holds every backend; all of it is the server's own.
var backendNet = netip.MustParsePrefix("10.99.0.0/16")

// CPUs of the ends. What a packet costs up to the server's socket is paid on
// the sender's CPU.
const (
	clientCPU = 0
	serverCPU = 1
)

func newSite(ctx context.Context, log *slog.Logger, clients int) (*site, error) {
	file, err := labFile(clients)
	if err != nil {
		return nil, err
	}
	defer os.Remove(file)
	s := &site{log: log}
	if s.lab, err = testenv.Up(ctx, testenv.Options{File: file}); err != nil {
		return nil, err
	}
	if err := s.furnish(clients); err != nil {
		s.close()
		return nil, fmt.Errorf("lay out the site: %w", err)
	}
	return s, nil
}

// labFile describes hosts without networks: the wires are laid afterwards.
func labFile(clients int) (string, error) {
	f, err := os.CreateTemp("", "weir-bench-*.yaml")
	if err != nil {
		return "", err
	}
	defer f.Close()
	fmt.Fprintf(f, "name: bench-%d-%x\nhosts:\n- {name: %s}\n- {name: %s}\n", os.Getpid(), time.Now().UnixNano()&0xffffff, routerHost, serverHost)
	for i := range clients {
		fmt.Fprintf(f, "- {name: c%d}\n", i)
	}
	return f.Name(), f.Sync()
}

func (s *site) furnish(clients int) error {
	var err error
	if s.server, err = s.start(serverHost, load.Server, serverCPU); err != nil {
		return err
	}
	if err := s.wire(0, serverHost, s.server.PID()); err != nil {
		return err
	}
	if err := s.serverRoutes(); err != nil {
		return err
	}
	for i := range clients {
		c := &client{host: fmt.Sprintf("c%d", i), lab: s.lab}
		if c.traffic, err = s.start(c.host, load.Client, clientCPU); err != nil {
			return err
		}
		s.clients = append(s.clients, c)
		if err := s.wire(i+1, c.host, c.traffic.PID()); err != nil {
			return err
		}
		if c.cgroup, err = cgroupOf(c.traffic.PID()); err != nil {
			return err
		}
		// Of the host's own bpffs, so that pins go with the host.
		c.pins = fmt.Sprintf("/proc/%d/root/sys/fs/bpf/weir", c.traffic.PID())
	}
	return nil
}

// start starts an end of the traffic on the host. Where there is one CPU only,
// nobody is pinned.
func (s *site) start(host string, role load.Role, cpu int) (*load.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if runtime.NumCPU() < 2 {
		cpu = -1
	}
	c := s.lab.Command(host, self)
	return load.Start(c.Cmd, c.Start, role, cpu)
}

// cgroupOf finds the cgroup v2 folder of the process.
func cgroupOf(pid int) (string, error) {
	root, err := testenv.CgroupRoot()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(root, path), nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup of %s", pid, root)
}

// run runs a command on the client's host, with that standard input.
func (c *client) run(ctx context.Context, input string, argv ...string) error {
	command := c.lab.CommandContext(ctx, c.host, argv...)
	command.Stdin = strings.NewReader(input)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %.500s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// close ends the site with all that was put on it.
func (s *site) close() {
	for _, c := range s.clients {
		for _, undo := range c.undo {
			undo()
		}
		c.traffic.Stop()
	}
	if s.server != nil {
		s.server.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.lab.Down(ctx); err != nil {
		s.log.Error("lab is left", "error", err)
	}
}
