package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestAServiceIsReachedByNameFromEveryNodeWithTheClientsOwnAddress(t *testing.T) {
	l := web(t)
	addresses := map[string]string{"a1": "10.80.0.11", "a2": "10.80.0.12", "p1": "10.80.0.31"}
	for host, address := range addresses {
		answers := map[string]int{}
		for range 20 {
			out, err := l.curl(host, "http://web.shop.vip.weir.internal/")
			if err != nil {
				t.Fatalf("curl on %s: %v\n%s", host, err, out)
			}
			server, client, _ := strings.Cut(strings.TrimSpace(out), " ")
			answers[server]++
			if !strings.HasPrefix(client, address+":") {
				t.Errorf("%s saw client %q, want %s", server, client, address)
			}
		}
		if answers["a1"] == 0 || answers["a2"] == 0 {
			t.Errorf("from %s the answers were not spread: %v", host, answers)
		}
	}
	out := l.must("p1", "--", "dig", "+short", "web.shop.vip.weir.internal", "A")
	if !strings.HasPrefix(out, "198.1") {
		t.Errorf("dig: got %q, want an address of the range", out)
	}
	if everywhere := l.must("a1", "--", "dig", "+short", "web.shop.vip.mesos", "A"); everywhere != out {
		t.Errorf("the alias's name on another node: got %q, want %q", everywhere, out)
	}
}

func TestAVIPRefusesAtOnceWithoutBackendsAndOnOtherPorts(t *testing.T) {
	l := web(t)
	out, err := l.curl("a1", "http://198.18.0.10:81/")
	if err == nil || !strings.Contains(out, "refused") && !strings.Contains(out, "Couldn't connect") {
		t.Errorf("an unserved port: got %v, %s", err, out)
	}
	l.write("services.yaml", "kind: service\nname: web\nnamespace: shop\nvips: [\"web:80\"]\n")
	l.eventually(5*time.Second, func() error {
		out, err := l.curl("a1", "http://web.shop.vip.weir.internal/")
		if err == nil {
			return errors.New("still answers: " + out)
		}
		if strings.Contains(out, "Could not resolve") {
			t.Fatalf("the name went with the backends: %s", out)
		}
		return nil
	})
}

func TestAKilledBackendIsGoneWithinASecondWithoutAnErrorForARetryingClient(t *testing.T) {
	l := web(t)
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := l.exec("p1", "--", "weir-lab", "load", "http://198.18.0.10/", "--rate", "100", "--duration", "3s", "--retry", "12")
		done <- result{out, err}
	}()
	time.Sleep(500 * time.Millisecond)
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a2", "--task", "web"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	l.eventually(3*time.Second, func() error { return l.backends("p1", api.Down, 1) })
	if r := <-done; r.err != nil {
		t.Errorf("a retrying client saw errors: %v\n%s", r.err, r.out)
	}
}

func TestZonesRefuseTheOutsiderAndLetInWhatThePolicyAllows(t *testing.T) {
	l := web(t)
	if out, err := l.curl("outsider", "http://10.80.0.11:8080/"); err == nil {
		t.Errorf("the outsider reached the private zone: %s", out)
	}
	l.must("p1", "--detach", "edge", "--", "weir-lab", "serve", "http", "203.0.113.31:80", "--name", "p1")
	l.eventually(3*time.Second, func() error {
		if out, err := l.curl("outsider", "http://203.0.113.31/"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	out := l.must("a1", "--", "weir", "zone", "explain", "10.80.0.99", "a1", "tcp/8080", "-o", "json")
	if !strings.Contains(out, `"deny"`) {
		t.Errorf("explain: got %s, want deny", out)
	}
	// A policy that fails its own test is refused, and the old one stays.
	l.write("policy.yaml", strings.Replace(policy, "from: [public, private]", "from: [any]", 1))
	l.eventually(3*time.Second, func() error {
		s := l.status("a1")
		if len(s.Refused) != 1 || s.Refused[0].Line == 0 || !strings.HasPrefix(s.Refused[0].Field, "tests[0]") {
			return fmt.Errorf("refused: %+v", s.Refused)
		}
		return nil
	})
	if out, err := l.curl("outsider", "http://10.80.0.11:8080/"); err == nil {
		t.Errorf("a refused policy opened the zone: %s", out)
	}
}

func TestAMalformedDocumentOfEveryKindIsRefusedWhileTrafficGoesOn(t *testing.T) {
	l := web(t)
	bad := map[string]string{
		"service": "kind: service\nname: x\nvips: [\"x:0\"]\n",
		"policy":  "kind: policy\nzones:\n  a: {cidrs: [10.0.0.1/8]}\n",
		"record":  "kind: record\nname: x\ntype: A\ndata: nonsense\n",
		"node":    "kind: node\nname: X!\naddresses: [10.0.0.1]\n",
		"half":    "kind: service\nname: x\nvips: [\"x:80\"\n",
	}
	for kind, text := range bad {
		l.write("bad.yaml", text)
		l.eventually(3*time.Second, func() error {
			s := l.status("a1")
			if len(s.Refused) == 0 || s.Refused[0].File != "/etc/weir/state.d/bad.yaml" || s.Refused[0].Line == 0 || s.Refused[0].Reason == "" {
				return fmt.Errorf("%s: refused: %+v", kind, s.Refused)
			}
			return nil
		})
		if out, err := l.curl("a1", "http://web.shop.vip.weir.internal/"); err != nil {
			t.Errorf("with a bad %s traffic stopped: %v\n%s", kind, err, out)
		}
		l.write("bad.yaml", "")
		l.eventually(3*time.Second, func() error {
			if s := l.status("a1"); len(s.Refused) > 0 {
				return fmt.Errorf("still refused: %+v", s.Refused)
			}
			return nil
		})
	}
}
