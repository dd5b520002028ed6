package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

const joinedHosts = `- {name: a1, run: [agent], zone: private, networks: {private: 10.80.0.11}}
- {name: a2, run: [agent], zone: private, networks: {private: 10.80.0.12}}
- {name: a3, run: [agent], zone: private, networks: {private: 10.80.0.13}}
- {name: a4, run: [agent], zone: private, networks: {private: 10.80.0.14}}
state: ./state.d
`

const oneController = `name: %s
networks: {private: 10.80.0.0/24}
hosts:
- {name: c1, run: [controller], zone: admin, networks: {private: 10.80.0.2}}
` + joinedHosts

const threeControllers = `name: %s
networks: {private: 10.80.0.0/24}
hosts:
- {name: c1, run: [controller], zone: admin, networks: {private: 10.80.0.2}}
- {name: c2, run: [controller], zone: admin, networks: {private: 10.80.0.3}}
- {name: c3, run: [controller], zone: admin, networks: {private: 10.80.0.4}}
` + joinedHosts

// joined brings a joined lab up, with the service's servers.
func joined(t *testing.T, labFile string) (*lab, *testenv.Lab) {
	t.Helper()
	l := upFrom(t, labFile, map[string]string{"service.yaml": uncheckedService})
	open, err := testenv.Open("", l.name)
	if err != nil {
		t.Fatal(err)
	}
	for i, host := range []string{"a1", "a2"} {
		l.serveWeb(host, fmt.Sprintf("10.80.0.1%d:8080", i+1))
	}
	return l, open
}

// serveWeb starts a server of the service and waits until it answers.
func (l *lab) serveWeb(host, address string) {
	l.t.Helper()
	l.must(host, "--detach", "web", "--", "weir-lab", "serve", "http", address, "--name", host)
	l.eventually(10*time.Second, func() error { _, err := l.curl(host, "http://"+address+"/"); return err })
}

// webWith is the service with these backends.
func webWith(addresses ...string) *api.Service {
	s := &api.Service{Name: "web", Namespace: "shop", VIPs: []api.VIP{{Addr: netip.MustParseAddr("198.18.0.10"), Port: 80}, {Name: "web", Port: 80}}}
	for _, a := range addresses {
		s.Backends = append(s.Backends, api.Backend{Address: netip.MustParseAddrPort(a)})
	}
	return s
}

func TestAJoinedLabFollowsItsControllers(t *testing.T) {
	l, open := joined(t, oneController)
	if s := l.status("a3"); !strings.HasPrefix(s.Source, "controller https://10.80.0.2") {
		t.Errorf("the state is from %q", s.Source)
	}
	began := time.Now()
	if _, err := open.Apply(t.Context(), webWith("10.80.0.11:8080", "10.80.0.12:8080", "10.80.0.13:8080")); err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Now()
	l.untilAll(open, []string{"a1", "a2", "a3", "a4"}, "10.80.0.13:8080", api.Up)
	t.Logf("a write took %s, and %s more to the last of four nodes", acknowledged.Sub(began), time.Since(acknowledged))
	if _, err := open.Apply(t.Context(), webWith("10.80.0.11:8080", "10.80.0.12:8080")); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a1", "a3"} {
		if out, err := l.curl(host, "http://web.shop.vip.weir.internal/"); err != nil {
			t.Errorf("on %s: %v\n%s", host, err, out)
		}
	}
	time.Sleep(500 * time.Millisecond)
	l.powerFaults(open, []string{"a1", "a3", "a4"}, tries(3))
}

func TestEverythingGoesOnWithoutControllers(t *testing.T) {
	l, open := joined(t, oneController)
	time.Sleep(500 * time.Millisecond)
	if err := open.KillController(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if out, err := l.curl("a3", "http://web.shop.vip.weir.internal/"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	l.powerFaults(open, []string{"a1", "a3", "a4"}, tries(2))
	l.serveWeb("a2", "10.80.0.12:8080")

	// An agent that starts meanwhile goes on from its disk.
	if err := open.KillAgent(t.Context(), "a3"); err != nil {
		t.Fatal(err)
	}
	if err := open.Start(t.Context(), "a3", 0); err != nil {
		t.Fatal(err)
	}
	if s := l.status("a3"); s.Source != "disk" {
		t.Errorf("the state is from %q, want disk", s.Source)
	}

	// One whose cache is damaged has nothing until a controller is back.
	if err := open.KillAgent(t.Context(), "a4"); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join("/run/weir-lab", l.name, "hosts/a4/var/lib/weir/wanted.log")
	data, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	data[20] ^= 1
	if err := os.WriteFile(cache, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open.Start(t.Context(), "c1", 0); err != nil {
		t.Fatal(err)
	}
	if err := open.Start(t.Context(), "a4", 0); err != nil {
		t.Fatal(err)
	}
	l.eventually(20*time.Second, func() error {
		for _, host := range []string{"a1", "a3", "a4"} {
			if s := l.status(host); !strings.HasPrefix(s.Source, "controller") {
				return fmt.Errorf("%s has its state from %q", host, s.Source)
			}
		}
		return nil
	})
	if out, err := l.curl("a4", "http://198.18.0.10/"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestARemovedNodeIsOutAndSaysSo(t *testing.T) {
	l, open := joined(t, oneController)
	if err := open.RemoveNode(t.Context(), "a4"); err != nil {
		t.Fatal(err)
	}
	l.eventually(20*time.Second, func() error {
		log, err := os.ReadFile(open.LogFile("a4", "agent"))
		if err == nil && !strings.Contains(string(log), "removed from the cluster") {
			err = fmt.Errorf("the agent does not say that it was removed")
		}
		return err
	})
}

func TestNothingFailsWhileControllersAreKilled(t *testing.T) {
	l, open := joined(t, threeControllers)
	done := make(chan string, 1)
	go func() {
		out, err := l.exec("a3", "--", "weir-lab", "load", "http://web.shop.vip.weir.internal/", "--rate", "50", "--duration", "6s")
		if err != nil {
			out += "\n" + err.Error()
		} else {
			out = ""
		}
		done <- out
	}()
	for _, host := range []string{"c1", "c2", "c3"} {
		time.Sleep(time.Second)
		if err := open.KillController(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		if host != "c3" {
			if err := open.Start(t.Context(), host, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out := <-done; out != "" {
		t.Errorf("requests failed: %s", out)
	}
	if _, err := open.Apply(t.Context(), webWith("10.80.0.12:8080")); err != nil {
		t.Errorf("two of three controllers take no write: %v", err)
	}
	l.eventually(10*time.Second, func() error { return l.backends("a3", api.Up, 1) })
}
