package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/weirproject/weir/agent/ipam"
	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// containerSpace is a process in a network namespace of its own.
func containerSpace(t *testing.T) (path string, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(end)
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), end
}

// networked is an agent that has networks alone, and the snapshot in force.
func networked(t *testing.T, dir string, s *api.Snapshot) *Networks {
	t.Helper()
	c := DefaultConfig()
	c.Node.Name, c.DataDir = "a1", dir
	a := &Agent{config: c, log: slog.New(slog.DiscardHandler)}
	a.networks = a.newNetworks()
	if s != nil {
		a.snapshot.Store(s)
	}
	return a.networks
}

func networksSnapshot() *api.Snapshot {
	self := api.Node{Name: "a1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	return &api.Snapshot{
		Revision: 1, Node: self, Nodes: []api.Node{self, {Name: "a2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}},
		Networks: []api.ContainerNetwork{{Name: "web", Range: netip.MustParsePrefix("10.128.0.0/16"), Range6: netip.MustParsePrefix("fd01:b::/64")}, {Name: "elsewhere", Range: netip.MustParsePrefix("10.129.0.0/16")}},
		Subnets: []api.Subnet{
			{Network: "web", Node: "a1", V4: netip.MustParsePrefix("10.128.1.0/29"), V6: netip.MustParsePrefix("fd01:b:0:0:1::/80")},
			{Network: "web", Node: "a2", V4: netip.MustParsePrefix("10.128.2.0/24"), V6: netip.MustParsePrefix("fd01:b:0:0:2::/80")},
			{Network: "elsewhere", Node: "a2", V4: netip.MustParsePrefix("10.129.2.0/24")},
		},
	}
}

func uplink(t *testing.T) {
	t.Helper()
	command(t, "sh", "-c", "ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up && ip addr add 192.0.2.1/24 dev up0")
}

func TestTasksAreAttachedToTheirNetworks(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	uplink(t)
	ctx, s, dir := t.Context(), networksSnapshot(), t.TempDir()
	n := networked(t, dir, nil)
	space, _ := containerSpace(t)
	web := []api.TaskNetwork{{Name: "web"}}
	if _, err := n.Attach(ctx, "t1", space, web, nil); !errors.Is(err, errNotReady) {
		t.Errorf("before the first snapshot: %v", err)
	}
	if links := command(t, "ip", "-o", "link"); strings.Contains(links, dataplane.BridgePrefix) {
		t.Errorf("before the first snapshot there is %s", links)
	}
	if _, err := n.apply(ctx, s); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Attach(ctx, "t0", space, []api.TaskNetwork{{Name: "host"}}, nil); err != nil || got != nil {
		t.Errorf("the host's network: %v, %v", got, err)
	}
	ports := []api.TaskPort{{Name: "http", Port: 80, HostPort: 8080}}
	got, err := n.Attach(ctx, "t1", space, append(web, api.TaskNetwork{Name: bridgeNetwork}), ports)
	if err != nil || len(got) != 4 || got[0].String() != "10.128.1.2" {
		t.Fatalf("attached with %v, %v", got, err)
	}
	if again, err := n.Attach(ctx, "t1", space, append(web, api.TaskNetwork{Name: bridgeNetwork}), ports); err != nil || !slices.Equal(again, got) {
		t.Errorf("again: %v, %v", again, err)
	}
	if held := command(t, "nsenter", "--net="+space, "ip", "addr"); !strings.Contains(held, "10.128.1.2/29") || !strings.Contains(held, "172.31.254.2/24") || !strings.Contains(held, "eth1") {
		t.Errorf("the task has %s", held)
	}

	other, end := containerSpace(t)
	for name, one := range map[string]struct {
		network api.TaskNetwork
		ports   []api.TaskPort
		want    error
	}{
		"unknown": {api.TaskNetwork{Name: "nowhere"}, nil, errNoNetwork}, "no part of it": {api.TaskNetwork{Name: "elsewhere"}, nil, errNoNetwork},
		"taken port":    {web[0], ports, ipam.ErrTaken},
		"taken address": {api.TaskNetwork{Name: "web", Addresses: got[:1]}, nil, ipam.ErrTaken},
		"gateway":       {api.TaskNetwork{Name: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.128.1.1")}}, nil, nil},
	} {
		if _, err := n.Attach(ctx, "t2", other, []api.TaskNetwork{one.network}, one.ports); err == nil || one.want != nil && !errors.Is(err, one.want) {
			t.Errorf("%s: %v, want %v", name, err, one.want)
		}
	}
	if _, err := n.Attach(ctx, "t2", "/nonexistent", web, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no namespace: %v", err)
	}
	second, err := n.Attach(ctx, "t2", other, []api.TaskNetwork{{Name: "web", Addresses: []netip.Addr{netip.MustParseAddr("10.128.1.6")}}}, nil)
	if err != nil || len(second) != 1 {
		t.Errorf("an address of the controller's choice: %v, %v", second, err)
	}

	// The agent dies and starts anew; meanwhile one task has ended.
	end()
	n = networked(t, dir, s)
	if changes, err := n.apply(ctx, s); err != nil || changes.Written != 0 {
		t.Errorf("a restart: %+v, %v", changes, err)
	}
	if all := n.book.All(); len(all) != 1 || all[0].ID != "t1" {
		t.Errorf("after a restart: %+v", all)
	}
	if again, err := n.Attach(ctx, "t1", space, append(web, api.TaskNetwork{Name: bridgeNetwork}), ports); err != nil || !slices.Equal(again, got) {
		t.Errorf("after a restart: %v, %v", again, err)
	}
	for range 2 {
		if err := n.Detach(ctx, "t1"); err != nil {
			t.Error(err)
		}
	}
	if links := command(t, "ip", "-o", "link"); strings.Contains(links, dataplane.VethPrefix) || strings.Contains(links, "weirb-bridge") || !strings.Contains(links, "weirb-web") {
		t.Errorf("after the last task there is %s", links)
	}
}

func TestATaskInANewNamespaceKeepsItsAddresses(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	uplink(t)
	n := networked(t, t.TempDir(), networksSnapshot())
	web := []api.TaskNetwork{{Name: "web"}}
	first, _ := containerSpace(t)
	second, _ := containerSpace(t)
	got, err := n.Attach(t.Context(), "t1", first, web, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.Attach(t.Context(), "t1", second, web, nil)
	if err != nil || !slices.Equal(again, got) {
		t.Fatalf("%v has become %v, %v", got, again, err)
	}
	if held := command(t, "nsenter", "--net="+second, "ip", "addr"); !strings.Contains(held, got[0].String()) {
		t.Errorf("the new namespace has %s", held)
	}
}

func TestAFullSubnetIsTold(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	uplink(t)
	n := networked(t, t.TempDir(), networksSnapshot())
	for i := range 5 {
		space, _ := containerSpace(t)
		if _, err := n.Attach(t.Context(), fmt.Sprint("t", i), space, []api.TaskNetwork{{Name: "web"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	space, _ := containerSpace(t)
	if _, err := n.Attach(t.Context(), "t9", space, []api.TaskNetwork{{Name: "web"}}, nil); !errors.Is(err, ipam.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if err := n.Detach(t.Context(), "t0"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach(t.Context(), "t9", space, []api.TaskNetwork{{Name: "web"}}, nil); err != nil {
		t.Errorf("after one was returned: %v", err)
	}
}

func TestANodeWithoutContainersIsLeftAlone(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	s := networksSnapshot()
	s.Networks, s.Subnets = nil, nil
	state := func() string {
		return command(t, "sh", "-c", "ip -o link; ip rule; nft list ruleset; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding")
	}
	before := state()
	n := networked(t, t.TempDir(), s)
	if changes, err := n.apply(t.Context(), s); err != nil || changes != (dataplane.Changes{}) {
		t.Errorf("%+v, %v", changes, err)
	}
	if after := state(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestContainersGatewaysAreNoAddressesOfTheNode(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	uplink(t)
	command(t, "sh", "-c", "ip link add weirb-bridge type bridge && ip link set weirb-bridge up && ip addr add 172.31.254.1/24 dev weirb-bridge")
	c := DefaultConfig()
	self, err := selfNode(c, nil)
	if err != nil || len(self.Addresses) != 1 || self.Addresses[0].String() != "192.0.2.1" {
		t.Errorf("the node has %v, %v", self.Addresses, err)
	}
	if all := ownAddresses("https://192.0.2.9:8443"); slices.ContainsFunc(all, func(a netip.Addr) bool { return a.String() == "172.31.254.1" }) {
		t.Errorf("the controllers are told %v", all)
	}
}

func TestContainersAskTheProxyWithZonesClosed(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testenv.NeedRoot(t)
	uplink(t)
	dir, s := t.TempDir(), networksSnapshot()
	n := networked(t, dir, s)
	a := n.agent
	if _, err := n.apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	space, _ := containerSpace(t)
	if _, err := n.Attach(t.Context(), "t1", space, []api.TaskNetwork{{Name: bridgeNetwork}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"172.31.254.0/24", "10.128.1.0/29"} {
		if all := a.containerNetworks(s); !slices.Contains(all, netip.MustParsePrefix(want)) {
			t.Errorf("%s may not ask the proxy: %v", want, all)
		}
	}
}

func TestConfigOfNetworksIsChecked(t *testing.T) {
	for key, change := range map[string]func(*NetworksConfig){
		"networks.bridge":  func(c *NetworksConfig) { c.Bridge = netip.MustParsePrefix("172.31.254.1/24") },
		"networks.bridge6": func(c *NetworksConfig) { c.Bridge6 = netip.MustParsePrefix("10.0.0.0/8") },
	} {
		c := defaultNetworks()
		change(&c)
		var f *api.FieldError
		if err := c.validate(); !errors.As(err, &f) || f.Field != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}
