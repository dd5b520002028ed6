package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/testenv/bench/load"
)

// The peers' rules, for traffic of the host's own processes: in the nat table's
// output hook of the client's namespace. The services that get no traffic have
// one backend here, since only the number of services matters to the others'
// traffic, and a million chains of one rule take longer to load than the whole
// benchmark.

var (
	nftCommand      = []string{"nft", "-f", "-"}
	iptablesCommand = []string{"iptables-restore"}
)

func (v servicePlan) port() string { return fmt.Sprint(v.at.Port()) }

// servicePlan is a service as a peer's rules have it.
type servicePlan struct {
	id       int
	protocol string
	at       netip.AddrPort
	backends []netip.AddrPort
}

func plans(t dataplane.Table) (all []servicePlan) {
	for i, s := range t.Services {
		backends := s.Backends
		if len(t.Services) > 2 && !used(i) {
			backends = backends[:1]
		}
		p := servicePlan{id: i, protocol: string(s.Protocol), at: s.Frontends[0]}
		for _, b := range backends {
			p.backends = append(p.backends, b.Address)
		}
		all = append(all, p)
	}
	return all
}

// nftChains has a chain for each service, which picks by a random number, and
// one for each of its backends.
func nftChains(t dataplane.Table) string {
	var b strings.Builder
	b.WriteString("table ip peer {\n")
	var elements []string
	for _, p := range plans(t) {
		var choices []string
		for j, to := range p.backends {
			fmt.Fprintf(&b, "chain endpoint-%d-%d {\nmeta l4proto %s dnat to %s\n}\n", p.id, j, p.protocol, to)
			choices = append(choices, fmt.Sprintf("%d : goto endpoint-%d-%d", j, p.id, j))
		}
		fmt.Fprintf(&b, "chain service-%d {\nnumgen random mod %d vmap { %s }\n}\n", p.id, len(choices), strings.Join(choices, ", "))
		elements = append(elements, fmt.Sprintf("%s . %s . %s : goto service-%d", p.at.Addr(), p.protocol, p.port(), p.id))
	}
	fmt.Fprintf(&b, "map services {\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = { %s }\n}\n", strings.Join(elements, ",\n"))
	b.WriteString("chain output {\ntype nat hook output priority -100\nip daddr . meta l4proto . th dport vmap @services\n}\n}\n")
	return b.String()
}

// nftMap has one map from frontends to backends.
func nftMap(t dataplane.Table) string {
	var b strings.Builder
	b.WriteString("table ip peer {\n")
	elements := map[string][]string{}
	for _, p := range plans(t) {
		elements[p.protocol] = append(elements[p.protocol], fmt.Sprintf("%s . %s : %s . %d", p.at.Addr(), p.port(), p.backends[0].Addr(), p.backends[0].Port()))
	}
	for protocol, list := range elements {
		fmt.Fprintf(&b, "map %s-services {\ntype ipv4_addr . inet_service : ipv4_addr . inet_service\nelements = { %s }\n}\n", protocol, strings.Join(list, ",\n"))
	}
	b.WriteString("chain output {\ntype nat hook output priority -100\n")
	for protocol := range elements {
		fmt.Fprintf(&b, "meta l4proto %s dnat ip to ip daddr . %s dport map @%s-services\n", protocol, protocol, protocol)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

// iptablesChains has one rule after the other for the services, and for each a
// chain with a rule by chance for each backend.
func iptablesChains(t dataplane.Table) string {
	var declared, rules strings.Builder
	declared.WriteString("*nat\n:SERVICES - [0:0]\n")
	rules.WriteString("-A OUTPUT -j SERVICES\n")
	for _, p := range plans(t) {
		fmt.Fprintf(&declared, ":SVC-%d - [0:0]\n", p.id)
		fmt.Fprintf(&rules, "-A SERVICES -d %s/32 -p %s -m %s --dport %s -j SVC-%d\n", p.at.Addr(), p.protocol, p.protocol, p.port(), p.id)
		for j, to := range p.backends {
			fmt.Fprintf(&declared, ":SEP-%d-%d - [0:0]\n", p.id, j)
			chance := ""
			if left := len(p.backends) - j; left > 1 {
				chance = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(left))
			}
			fmt.Fprintf(&rules, "-A SVC-%d %s-j SEP-%d-%d\n-A SEP-%d-%d -p %s -m %s -j DNAT --to-destination %s\n",
				p.id, chance, p.id, j, p.id, j, p.protocol, p.protocol, to)
		}
	}
	return declared.String() + rules.String() + "COMMIT\n"
}

// haproxyConfig listens on the frontend and forwards to the backends. Nothing
// is checked or logged.
func haproxyConfig(p servicePlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen service
  bind %s
  balance random
`, p.at)
	for j, to := range p.backends {
		fmt.Fprintf(&b, "  server b%d %s\n", j, to)
	}
	return b.String()
}

// startHAProxy gives the client's host the virtual address and runs HAProxy on
// it, on any CPU.
func startHAProxy(c *client, t dataplane.Table) error {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return err
	}
	p := plans(t)[0]
	err = c.lab.Do(c.host, func() error { return address("lo", p.at.Addr().String()+"/32") })
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "weir-bench-haproxy-*.cfg")
	if err != nil {
		return err
	}
	c.undo = append(c.undo, func() { os.Remove(file.Name()) })
	if _, err := file.WriteString(haproxyConfig(p)); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	command := c.lab.Command(c.host, path, "-q", "-db", "-f", file.Name())
	if err := command.Start(); err != nil {
		return fmt.Errorf("start haproxy: %w", err)
	}
	c.undo = append(c.undo, func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return awaitAnswer(c, p.at, 5*time.Second)
}

// awaitAnswer waits until somebody answers at the address.
func awaitAnswer(c *client, at netip.AddrPort, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		r, err := c.traffic.Do(context.Background(), load.Job{Op: load.Request, Targets: []netip.AddrPort{at}, For: time.Millisecond})
		if err != nil || r.Count > 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("nobody answers at %s: %v", at, r.Failures)
		}
	}
}
