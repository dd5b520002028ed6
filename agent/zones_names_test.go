package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
)

// outside makes a machine at 192.0.2.1 and .2 beyond the test's network, where
// nobody listens: who reaches it is refused, who does not hears nothing.
func outside(t *testing.T) {
	t.Helper()
	far := exec.Command("sleep", "300")
	far.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := far.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Process.Kill(); _ = far.Wait() })
	pid := strconv.Itoa(far.Process.Pid)
	command(t, "ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", pid)
	command(t, "ip", "addr", "add", "10.9.0.1/24", "dev", "near")
	command(t, "ip", "link", "set", "near", "up")
	command(t, "ip", "route", "add", "192.0.2.0/24", "via", "10.9.0.254")
	for _, argv := range []string{"ip addr add 10.9.0.254/24 dev far", "ip addr add 192.0.2.1/32 dev far", "ip addr add 192.0.2.2/32 dev far", "ip link set far up", "ip link set lo up"} {
		command(t, append([]string{"nsenter", "-t", pid, "-n"}, strings.Fields(argv)...)...)
	}
	for end := time.Now().Add(20 * time.Second); !reaches("10.9.0.254:1"); {
		if time.Now().After(end) {
			t.Fatal("the far machine does not come up")
		}
	}
}

// reaches tells whether a connection's first packet comes through.
func reaches(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}

// upstream answers with 192.0.2.N and the TTL, by name.
func upstream(t *testing.T, at string, answers map[string]string) {
	t.Helper()
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := strings.ToLower(q.Question[0].Name)
		if answer, known := answers[name]; known && q.Question[0].Qtype == dns.TypeA {
			rr, err := dns.NewRR(fmt.Sprintf("%s %s", name, answer))
			if err != nil {
				t.Error(err)
			}
			rr.Header().Name = q.Question[0].Name
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
}

func resolve(t *testing.T, name string) {
	t.Helper()
	m, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), "127.0.0.1:5354")
	if err != nil || len(m.Answer) != 1 {
		t.Fatalf("resolve %s: %v, %v", name, m, err)
	}
}

const egressPolicy = `kind: policy
zones:
  private: {nodes: {role: agent}}
egress:
- {name: gate, from: [private], to: [10.9.0.254], allow: [any]}
- {name: packages, from: [private], names: [deb.example.com, "*.mirror.example.com"], allow: [tcp/443]}
`

func TestANameOpensItsAddressesForAsLongAsTheyAreValid(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		outside(t)
		upstream(t, "127.0.0.1:5300", map[string]string{"deb.example.com.": "1 IN A 192.0.2.1", "x.mirror.example.com.": "3600 IN A 192.0.2.2"})
		r := newRig(t, func(c *Config) {
			c.Zones.Backend = backend
			c.DNS.Listen, c.DNS.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 5354
			c.DNS.Upstreams = []dnsproxy.Upstream{{Protocol: dnsproxy.UDP, Address: netip.MustParseAddrPort("127.0.0.1:5300")}}
		})
		r.write("policy.yaml", egressPolicy)
		r.start()
		if reaches("192.0.2.1:443") {
			t.Error("an address is open before its name was asked for")
		}
		resolve(t, "deb.example.com.")
		if !reaches("192.0.2.1:443") {
			t.Error("the address is closed when the answer is there")
		}
		if reaches("192.0.2.1:80") || reaches("192.0.2.2:443") {
			t.Error("more than the rule says is open")
		}
		x, err := r.client.ZoneExplain(t.Context(), "a1", "192.0.2.1", "tcp/443", "")
		if err != nil || x.Verdict != api.Allow || x.Rule != "packages" || x.Hook != "output" {
			t.Errorf("explain: got %+v, %v", x, err)
		}
		r.await("the end of the address", func() bool { return !reaches("192.0.2.1:443") })
		resolve(t, "x.mirror.example.com.")
		r.stop()
		if !reaches("192.0.2.2:443") {
			t.Error("the address is closed while the agent is down")
		}
		r.start()
		if !reaches("192.0.2.2:443") {
			t.Error("the address is closed after a restart")
		}
		// Rules that are gone come back with what they had learnt.
		if _, err := cleanFilter(t.Context(), backend); err != nil {
			t.Fatal(err)
		}
		r.await("the repair", func() bool { return !reaches("192.0.2.1:443") && reaches("192.0.2.2:443") })
	})
}

func TestAFilterTakesWhatTheOneBeforeHadLearnt(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	outside(t)
	upstream(t, "127.0.0.1:5300", map[string]string{"x.mirror.example.com.": "3600 IN A 192.0.2.2"})
	r := newRig(t, func(c *Config) {
		c.Zones.Backend = nftablesFilter
		c.DNS.Listen, c.DNS.Port = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 5354
		c.DNS.Upstreams = []dnsproxy.Upstream{{Protocol: dnsproxy.UDP, Address: netip.MustParseAddrPort("127.0.0.1:5300")}}
	})
	r.write("policy.yaml", strings.ReplaceAll(egressPolicy, ", \"*.mirror.example.com\"", ""))
	r.start()
	resolve(t, "x.mirror.example.com.") // no rule has the name yet
	r.write("policy.yaml", egressPolicy)
	r.await("the names", func() bool { return r.agent.zones.learner.Wants("x.mirror.example.com") })
	r.await("the proxy's forgetting", func() bool {
		resolve(t, "x.mirror.example.com.") // not from the cache
		return reaches("192.0.2.2:443")
	})
	r.stop()
	r.config.Zones.Backend = iptablesFilter
	r.start()
	if !reaches("192.0.2.2:443") {
		t.Error("the address is closed")
	}
}

func TestDropsAreToldWithNamesAndCounted(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		outside(t)
		r := newRig(t, func(c *Config) { c.Zones.Backend = backend })
		r.write("policy.yaml", egressPolicy+"rules:\n- {name: db, from: [private], to: [private], allow: [tcp/5432]}\n")
		r.write("web.yaml", "kind: service\nname: web\nnamespace: shop\nvips: [\"web:80\"]\nbackends:\n- {address: \"10.9.0.1:80\", node: a1}\n")
		r.start()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		heard := make(chan api.ZoneDrop, 1)
		go func() {
			_ = r.client.FollowZoneDrops(ctx, func(d api.ZoneDrop) error {
				select {
				case heard <- d:
				default:
				}
				return nil
			})
		}()
		var d api.ZoneDrop
		r.await("a drop", func() bool {
			reaches("192.0.2.1:443")
			select {
			case d = <-heard:
				return true
			default:
				return false
			}
		})
		if d.Rule != "default-deny" || d.Verdict != "drop" || d.Hook != "output" || d.Out != "near" || d.Protocol != "tcp" || d.To.String() != "192.0.2.1:443" ||
			fmt.Sprint(d.FromIs) != "{[a1] [/shop/web] [private]}" {
			t.Errorf("got %+v", d)
		}
		last, err := r.client.ZoneDrops(t.Context())
		if err != nil || len(last) == 0 || last[0].Rule != d.Rule {
			t.Errorf("got %+v, %v", last, err)
		}
		if n := gauge(t, r.agent, "weir_zone_dropped_packets_total", "default-deny"); n == 0 {
			t.Error("the drops are not counted")
		}
		s, err := r.client.Zones(t.Context())
		if err != nil || len(s.Zones) != 1 || !s.Zones[0].Here || s.Zones[0].Size != 2 || s.Rules[len(s.Rules)-1].Verdict == "" {
			t.Errorf("list: got %+v, %v", s, err)
		}
	})
}

func TestObserveCountsWhatWouldDropAndDropsNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		outside(t)
		r := newRig(t, func(c *Config) { c.Zones.Backend, c.Zones.Mode = backend, "observe" })
		r.write("policy.yaml", egressPolicy)
		r.start()
		if !reaches("192.0.2.1:443") {
			t.Error("observe drops")
		}
		if n := gauge(t, r.agent, "weir_zone_would_drop_packets_total", "default-deny"); n == 0 {
			t.Error("what would drop is not counted")
		}
		if n := gauge(t, r.agent, "weir_zone_dropped_packets_total", "default-deny"); n != 0 {
			t.Errorf("%v count as dropped", n)
		}
		r.await("the report", func() bool {
			all, err := r.client.ZoneDrops(t.Context())
			reaches("192.0.2.1:443")
			return err == nil && len(all) > 0 && all[0].Verdict == "observe"
		})
	})
}

// gauge is a rule's value of a metric; 0: it has none.
func gauge(t *testing.T, a *Agent, name, rule string) float64 {
	t.Helper()
	families, err := prometheus.Gatherer(a.registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == rule {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
