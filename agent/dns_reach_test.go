package agent

import (
	"bytes"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/dataplane"
)

// closedPolicy is a policy that lets nobody in.
const closedPolicy = "kind: policy\nzones: {here: {nodes: {names: [a1]}}, office: {cidrs: [203.0.113.0/29]}}\nrules: [{name: ops, from: [office], to: [here], allow: [tcp/22]}]\n"

func TestContainersOnABridgeReachTheProxyThoughZonesAreClosed(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	command(t, "sh", "-ec", `
ip link add docker0 type bridge
ip addr add 172.30.0.1/16 dev docker0; ip addr add fd00:30::1/64 dev docker0 nodad; ip link set docker0 up
ip link add outside type veth peer name stranger
ip addr add 10.80.0.11/24 dev outside; ip addr add fd00:80::11/64 dev outside nodad; ip link set outside up
sysctl -qw net.ipv4.conf.all.rp_filter=1`)
	container := space(t, "c0", "docker0", "172.30.0.2/16", "172.30.0.1", "fd00:30::2/64", "fd00:30::1")
	stranger := spaceOf(t, "stranger", "10.80.0.9/24", "10.80.0.11", "fd00:80::9/64", "fd00:80::11")

	r := newAgentRig(t, "dns: {listen: [169.254.53.53, \"fd77:6569:7264::53\"]}")
	r.writeState("kind: record\nname: db\ntype: A\ndata: 10.0.0.9\n---\n" + closedPolicy)
	r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	for _, server := range []string{"169.254.53.53", "fd77:6569:7264::53"} {
		for _, way := range []string{"+notcp", "+tcp"} {
			if out := container.dig(way, server); !strings.Contains(out, "10.0.0.9") {
				t.Errorf("a container at %s %s: got %s", server, way, out)
			}
			if out := stranger.dig(way, server); strings.Contains(out, "10.0.0.9") {
				t.Errorf("a stranger at %s %s: got an answer", server, way)
			}
		}
	}
	if out := container.run("nc", "-z", "-w", "1", "172.30.0.1", "22"); strings.Contains(out, "refused") {
		t.Errorf("more than the proxy is open: %s", out)
	}
	// A container that comes on a bridge of its own later is let in too.
	command(t, "sh", "-ec", "ip link add br-late type bridge; ip addr add 172.31.0.1/16 dev br-late; ip link set br-late up")
	late := space(t, "c1", "br-late", "172.31.0.2/16", "172.31.0.1", "fd00:31::2/64", "fd00:31::1")
	var out string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if out = late.dig("+notcp", "169.254.53.53"); strings.Contains(out, "10.0.0.9") {
			return
		}
	}
	t.Errorf("a later container: got %s", out)
}

// netspace is a network namespace beside the test's own, held by a process.
type netspace struct {
	t   *testing.T
	pid string
}

// space makes one with an end of a veth pair, the other end of which is on a
// bridge.
func space(t *testing.T, name, bridge, v4, gateway4, v6, gateway6 string) netspace {
	t.Helper()
	command(t, "sh", "-ec", "ip link add "+name+" type veth peer name "+name+"-in; ip link set "+name+" master "+bridge+" up")
	return spaceOf(t, name+"-in", v4, gateway4, v6, gateway6)
}

// spaceOf makes one with a link of the test's namespace.
func spaceOf(t *testing.T, link, v4, gateway4, v6, gateway6 string) netspace {
	t.Helper()
	holder := exec.Command("sleep", "600")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	s := netspace{t, strconv.Itoa(holder.Process.Pid)}
	command(t, "ip", "link", "set", link, "netns", s.pid)
	out := s.run("sh", "-ec", "ip link set lo up; ip addr add "+v4+" dev "+link+"; ip addr add "+v6+" dev "+link+" nodad; ip link set "+link+" up; ip route add default via "+
		gateway4+"; ip -6 route add default via "+gateway6+" 2>&1")
	if out != "" {
		t.Fatal(out)
	}
	return s
}

func (s netspace) run(argv ...string) string {
	out, _ := exec.Command("nsenter", append([]string{"-n", "-t", s.pid}, argv...)...).CombinedOutput()
	return string(bytes.TrimSpace(out))
}

func (s netspace) dig(way, server string) string {
	return s.run("dig", "+tries=1", "+time=1", "+short", way, "@"+server, "db.weir.internal")
}

func TestTheRuleForContainersIsFirstAndOnlyForTheProxy(t *testing.T) {
	var k askable
	c := DefaultConfig().DNS
	c.TLS.Listen = []netip.Addr{netip.MustParseAddr("10.80.0.11")}
	clients := []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("172.30.5.0/24"), netip.MustParsePrefix("10.88.0.0/16")}
	if k.of(nil, c, clients) != nil {
		t.Error("without rules there is one")
	}
	r := &dataplane.Ruleset{Sets: []dataplane.AddressSet{{Name: "a"}, {Name: "z"}}, Input: []dataplane.FilterRule{{Name: "last", Deny: true}}}
	made := k.of(r, c, clients)
	if made == r || len(r.Input) != 1 || len(r.Sets) != 2 {
		t.Fatal("the compiler's own ruleset was changed")
	}
	var names []string
	for _, s := range made.Sets {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "a weir-dns-clients weir-dns-proxy z" || len(made.Sets[1].Prefixes) != 2 {
		t.Errorf("sets %s, clients %v", got, made.Sets[1].Prefixes)
	}
	if rule := made.Input[0]; rule.Name != askRule || len(rule.Ports) != 3 || len(made.Input) != 2 {
		t.Errorf("rules %+v", made.Input)
	}
	if k.of(r, c, clients) != made || k.of(r, c, clients[:1]) == made {
		t.Error("it is not made anew exactly when something changes")
	}
	if off := (DNSConfig{}); k.of(r, off, clients) != r {
		t.Error("without a proxy there is a rule")
	}
}

func TestResolvConfOfTasksHasTheProxyAlone(t *testing.T) {
	c := DefaultConfig()
	c.DNS.Listen = append([]netip.Addr{netip.MustParseAddr("fd77:6569:7264::53")}, c.DNS.Listen...)
	want := "nameserver 169.254.53.53\nnameserver fd77:6569:7264::53\nsearch shop.weir.internal weir.internal\noptions ndots:1 timeout:1 attempts:5\n"
	if got := string(ResolvConf(c, []string{"shop.weir.internal", "weir.internal"})); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := dns.ClientConfigFromReader(strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	c.DNS.Port = 5353
	if got := ResolvConf(c, nil); got != nil {
		t.Errorf("at a port that resolv.conf cannot tell: got %q", got)
	}
}
