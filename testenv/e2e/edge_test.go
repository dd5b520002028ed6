package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// edgeLab has two edge nodes, two backends that reach clients by a router of
// their own, and a client outside. The wires are veth, where XDP in the driver
// cannot send to another wire.
const edgeLab = `name: %s
networks: {private: 10.80.0.0/24, public: 203.0.113.0/24}
hosts:
- {name: e1, run: [agent], zone: public, role: public, networks: {private: 10.80.0.31, public: 203.0.113.31},
   agent: {vip: {edge: {interfaces: [public], announce: true, mode: generic}}}}
- {name: e2, run: [agent], zone: public, role: public, networks: {private: 10.80.0.32, public: 203.0.113.32},
   agent: {vip: {edge: {interfaces: [public], announce: true, mode: generic}}}}
- {name: a1, run: [agent], zone: private, networks: {private: 10.80.0.11}, gateway: 10.80.0.1}
- {name: a2, run: [agent], zone: private, networks: {private: 10.80.0.12}, gateway: 10.80.0.1}
- {name: r1, networks: {private: 10.80.0.1, public: 203.0.113.1}}
- {name: client, networks: {public: 203.0.113.9}}
- {name: stranger, networks: {public: 203.0.113.200}}
state: ./state.d
agent: {vip: {edge: {order: [e1, e2]}}}
`

const edgeService = `kind: service
name: web
namespace: shop
vips: ["203.0.113.100:80", "198.18.0.10:80"]
balance: maglev
backends:
- {address: "10.80.0.11:8080", node: a1}
- {address: "10.80.0.12:8080", node: a2}
health: {http: {path: /healthz}, interval: 100ms, timeout: 500ms, failures: 2}
edge: {allow: [203.0.113.0/25]}
`

const edgePolicy = `kind: policy
zones:
  private: {nodes: {role: agent}}
  public:  {nodes: {role: public}}
rules:
- {name: inner, from: [public, private], to: [private, public], allow: [any]}
tests:
- {from: 203.0.113.9, to: private, port: tcp/8080, expect: deny}
`

func edge(t *testing.T) *lab {
	t.Helper()
	l := upFrom(t, edgeLab, map[string]string{"services.yaml": edgeService, "policy.yaml": edgePolicy})
	l.must("r1", "--", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter")
	for i, host := range []string{"a1", "a2"} {
		l.must(host, "--detach", "web", "--", "weir-lab", "serve", "http", fmt.Sprintf("10.80.0.1%d:8080", i+1), "--name", host)
	}
	for _, host := range []string{"e1", "e2", "a1"} {
		l.eventually(5*time.Second, func() error { return l.backends(host, api.Up, 2) })
	}
	l.eventually(5*time.Second, func() error { _, err := l.owner("e1", "e2"); return err })
	return l
}

// owner is the one of the hosts that has the virtual addresses.
func (l *lab) owner(hosts ...string) (string, error) {
	for _, host := range hosts {
		for _, c := range l.status(host).Components {
			if c.Name == "edge" && strings.Contains(c.Detail, "owner of IPv4") {
				return host, nil
			}
		}
	}
	return "", fmt.Errorf("none of %v owns the virtual addresses", hosts)
}

func TestClientsOutsideReachAServiceThroughTheEdgeWithTheirOwnAddress(t *testing.T) {
	l := edge(t)
	answers := map[string]int{}
	for range 20 {
		out, err := l.curl("client", "http://203.0.113.100/")
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		server, client, _ := strings.Cut(strings.TrimSpace(out), " ")
		answers[server]++
		if !strings.HasPrefix(client, "203.0.113.9:") {
			t.Errorf("the backend saw client %q, want its own address", client)
		}
	}
	if answers["a1"] == 0 || answers["a2"] == 0 {
		t.Errorf("the answers were not spread: %v", answers)
	}
	if out, err := l.curl("client", "http://203.0.113.100:81/"); err == nil || strings.Contains(out, "timed out") {
		t.Errorf("an unserved port: got %v, %s; want it refused at once", err, out)
	}
	if out, err := l.curl("stranger", "http://203.0.113.100/"); err == nil {
		t.Errorf("a client that the service does not allow was served: %s", out)
	}
}

// Connections that are open stay open when the edge node that they came by is
// powered off, and new ones are taken over within a second.
func TestAnEdgeNodeIsPoweredOffAndNoOpenConnectionBreaks(t *testing.T) {
	l := edge(t)
	const connections = 12
	outs, errs := make([]string, connections), make([]error, connections)
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			// Three requests on one connection, 2 s apart.
			outs[i], errs[i] = l.exec("client", "--", "curl", "-sS", "--max-time", "10", "--rate", "30/m", "-w", "%{num_connects}\n",
				"http://203.0.113.100/", "http://203.0.113.100/", "http://203.0.113.100/")
		})
	}
	time.Sleep(time.Second)
	first, err := l.owner("e1", "e2")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run("weir-lab", "kill", "--lab", l.name, first, "--power"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	killed := time.Now()
	other := map[string]string{"e1": "e2", "e2": "e1"}[first]
	l.eventually(5*time.Second, func() error { _, err := l.owner(other); return err })
	t.Logf("the other edge node owned the address %s after the power went", time.Since(killed).Round(10*time.Millisecond))
	if out, err := l.curl("client", "http://203.0.113.100/"); err != nil {
		t.Errorf("a new connection after the take-over: %v\n%s", err, out)
	}
	all.Wait()
	for i := range connections {
		lines := strings.Fields(outs[i]) // name, client and count, three times
		if errs[i] != nil || len(lines) != 9 || lines[2] != "1" || lines[5] != "0" || lines[8] != "0" {
			t.Errorf("connection %d: %v, %q; want three answers on one connection", i, errs[i], outs[i])
		}
	}
}

// A backend's node is powered off: the edge stops sending to it.
func TestTheEdgeLeavesALostBackendOut(t *testing.T) {
	l := edge(t)
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a2", "--power"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	l.eventually(5*time.Second, func() error { return l.backends("e1", api.Down, 1) })
	for range 20 {
		out, err := l.curl("client", "http://203.0.113.100/")
		if err != nil || !strings.HasPrefix(out, "a1 ") {
			t.Fatalf("got %v, %q; want an answer of a1", err, out)
		}
	}
}
