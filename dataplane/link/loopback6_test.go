package link

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv"
)

// ownNamespace runs the test that calls it in a process with a network namespace
// of its own; it gives false in the process that go test has started.
func ownNamespace(t *testing.T) bool {
	t.Helper()
	testenv.NeedNetns(t)
	const mark = "WEIR_LINK_TEST_NAMESPACE"
	if os.Getenv(mark) == t.Name() {
		shell(t, "ip link set lo up")
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func TestAddressesOfBothFamiliesAreOnLoAndTakenAwayAlone(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	// Somebody else's stay: like ours but for the mark, too.
	shell(t, "ip addr add fd00::1/128 dev lo; ip addr add fd77:6569:7264::99/128 dev lo nodad noprefixroute; ip addr add 192.0.2.1/32 dev lo")
	v4, v6, second := netip.MustParseAddr("169.254.53.53"), netip.MustParseAddr("fd77:6569:7264::53"), netip.MustParseAddr("fd77:6569:7264::54")
	set := func(want dataplane.Changes, wanted, known []netip.Addr) {
		t.Helper()
		if got, err := SetLoopback(wanted, known); err != nil || got != want {
			t.Errorf("set %v: got %+v, %v, want %+v", wanted, got, err, want)
		}
	}
	set(dataplane.Changes{Written: 2}, []netip.Addr{v4, v6}, nil)
	set(dataplane.Changes{}, []netip.Addr{v4, v6}, []netip.Addr{v4, v6})
	shown := shell(t, "ip -6 addr show dev lo")
	if !strings.Contains(shown, "fd77:6569:7264::53/128") || !strings.Contains(shown, "deprecated") {
		t.Errorf("lo has\n%s", shown)
	}
	shell(t, "ip addr del fd77:6569:7264::53/128 dev lo")
	set(dataplane.Changes{Repaired: 1}, []netip.Addr{v4, v6}, []netip.Addr{v4, v6})
	set(dataplane.Changes{Written: 1, Removed: 1}, []netip.Addr{v4, second}, []netip.Addr{v4, v6})
	if n, err := Cleanup(); n != 2 || err != nil {
		t.Errorf("cleanup: got %d, %v", n, err)
	}
	shown = shell(t, "ip addr show dev lo")
	for _, want := range []string{"fd00::1/128", "fd77:6569:7264::99/128", "192.0.2.1/32"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s has gone too:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "53.53") || strings.Contains(shown, "7264::54") {
		t.Errorf("ours are left:\n%s", shown)
	}
}

func TestOnlyBridgesToContainersCount(t *testing.T) {
	if !ownNamespace(t) {
		return
	}
	shell(t, `
ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip addr add fd00:17::1/64 dev docker0 nodad
ip link add v0 type veth peer name v1; ip link set v0 master docker0
ip link add empty0 type bridge; ip addr add 10.88.0.1/16 dev empty0
ip link add lan0 type bridge; ip addr add 192.0.2.7/24 dev lan0
ip link add nic0 type ifb; ip link set nic0 master lan0
ip link add p0 type veth peer name p1; ip addr add 10.80.0.11/24 dev p0`)
	got, err := BridgedNetworks()
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, p := range got {
		texts = append(texts, p.String())
	}
	if want := "10.88.0.0/16 172.17.0.0/16 fd00:17::/64"; strings.Join(texts, " ") != want {
		t.Errorf("got %v, want %s", texts, want)
	}
}
