package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// edge is examples/edge with its servers: two edge nodes, two backends that reach
// clients by a router of their own, a client outside and a stranger.
func edge(t *testing.T) *lab {
	t.Helper()
	const example = "../../examples/edge"
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(example, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	l := upFrom(t, strings.Replace(read("lab.yaml"), "name: edge", "name: %s", 1), map[string]string{
		"service.yaml": read("state.d/service.yaml"), "policy.yaml": read("state.d/policy.yaml"),
	})
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

// A check through the tunnel sees what a direct one does not: that the backend's
// node takes nothing out of tunnels any more.
func TestAnEdgeNodeChecksTheWholeWay(t *testing.T) {
	l := edge(t)
	text, err := os.ReadFile(filepath.Join(l.stateDir, "service.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	l.write("service.yaml", strings.Replace(string(text), "{http: {path: /healthz}, interval: 100ms", "{tcp: {tunnel: true}, interval: 100ms", 1))
	for _, host := range []string{"e1", "e2", "a1"} {
		l.eventually(5*time.Second, func() error { return l.backends(host, api.Up, 2) })
	}
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a2", "--agent"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	time.Sleep(time.Second)
	if err := l.backends("e1", api.Up, 2); err != nil {
		t.Errorf("with the agent dead: %v", err)
	}
	l.must("a2", "--", "weir-agent", "cleanup")
	for _, host := range []string{"e1", "e2"} {
		l.eventually(5*time.Second, func() error { return l.backends(host, api.Down, 1) })
	}
	if err := l.backends("a1", api.Up, 2); err != nil {
		t.Errorf("checked directly: %v", err)
	}
}
