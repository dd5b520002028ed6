package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/testenv"
)

// rig is an agent that runs in a test's own network, for its zones alone.
type rig struct {
	t      *testing.T
	config Config
	state  string
	agent  *Agent
	client *client.Client
	stop   func()
}

const rigNodes = "kind: node\nname: a1\naddresses: [10.9.0.1]\n---\nkind: node\nname: a2\naddresses: [10.9.0.2]\n"

const rigPolicy = `kind: policy
zones:
  private: {nodes: {role: agent}}
rules:
- {name: inner, from: [private], to: [private], allow: [any]}
- {name: ssh, from: [any], to: [private], allow: [tcp/22]}
`

// closed is rigPolicy without SSH.
var closed = strings.Replace(rigPolicy, "- {name: ssh, from: [any], to: [private], allow: [tcp/22]}\n", "", 1)

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, config: DefaultConfig(), state: filepath.Join(dir, "state")}
	r.config.Node.Name, r.config.State = "a1", []string{r.state}
	r.config.RunDir, r.config.DataDir = filepath.Join(dir, "run"), filepath.Join(dir, "data")
	r.config.VIP.Dataplane, r.config.DNS.Listen, r.config.Metrics.Listen = "off", nil, ""
	for _, c := range change {
		c(&r.config)
	}
	for _, d := range []string{r.state, r.config.RunDir, r.config.DataDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.write("nodes.yaml", rigNodes)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.state, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.state, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// start runs an agent until everything is applied.
func (r *rig) start() {
	r.t.Helper()
	ready, ended := make(chan bool), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	r.agent, err = New(Options{Config: r.config, Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)), Ready: func() { close(ready) }})
	if err != nil {
		cancel()
		r.t.Fatal(err)
	}
	go func() { ended <- r.agent.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("run: %v", err)
		}
	}
	r.t.Cleanup(r.stop)
	select {
	case <-ready:
	case err := <-ended:
		stopped = true
		r.t.Fatalf("the agent ended: %v", err)
	case <-time.After(30 * time.Second):
		r.t.Fatalf("the agent is not ready: %+v", r.agent.Status())
	}
	if r.client, err = client.New(filepath.Join(r.config.RunDir, "agent.sock")); err != nil {
		r.t.Fatal(err)
	}
}

// await waits for what must come true.
func (r *rig) await(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s did not come true: %+v", what, r.agent.Status())
		}
	}
}

// rules are those in the kernel, of both filters.
func (r *rig) rules() string {
	r.t.Helper()
	return command(r.t, "sh", "-c", "nft list table inet weir 2>/dev/null; iptables-save 2>/dev/null | grep WEIR; ipset list -n 2>/dev/null; true")
}

func (r *rig) apply(text string, confirm time.Duration) api.ZoneApplied {
	r.t.Helper()
	done, err := r.client.ZoneApply(r.t.Context(), api.ZoneApply{ZonePolicyFile: api.ZonePolicyFile{File: "new.yaml", Text: text}, Confirm: api.Duration(confirm), By: "me"})
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

// inForce tells whether the kernel has the rule for SSH.
func (r *rig) sshOpen() bool { return strings.Contains(r.rules(), "ssh") }

func eachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{nftablesFilter, iptablesFilter} {
		t.Run(backend, func(t *testing.T) {
			if ownNetwork(t) {
				test(t, backend)
			}
		})
	}
}

func TestWhoeverFlushesOurRulesIsUndoneAndCounted(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		r := newRig(t, func(c *Config) { c.Zones.Backend = backend })
		r.write("policy.yaml", rigPolicy)
		r.start()
		if !r.sshOpen() {
			t.Fatalf("the rules are not there:\n%s", r.rules())
		}
		if backend == nftablesFilter {
			command(t, "nft", "flush", "ruleset")
		} else {
			command(t, "iptables", "-F")
		}
		began := time.Now()
		r.await("the repair", r.sshOpen)
		t.Logf("repaired in %s", time.Since(began))
		r.await("the count", func() bool { return r.agent.Status().Components[0].Repaired > 0 })
	})
}

func TestAnotherBackendTakesTheRulesOfTheOneBefore(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := newRig(t)
	r.write("policy.yaml", rigPolicy)
	for _, step := range []struct{ backend, has, hasNot string }{
		{nftablesFilter, "table inet weir", "WEIR-"}, {iptablesFilter, "WEIR-", "table inet weir"}, {"auto", "table inet weir", "WEIR-"},
	} {
		r.config.Zones.Backend = step.backend
		r.start()
		if out := r.rules(); !strings.Contains(out, step.has) || strings.Contains(out, step.hasNot) || step.backend != iptablesFilter && strings.Contains(out, "weir4-") {
			t.Errorf("%s:\n%s", step.backend, out)
		}
		s, err := r.client.Zones(t.Context())
		if err != nil || s.Reason == "" || s.Backend != step.backend && step.backend != "auto" {
			t.Errorf("%s: got %+v, %v", step.backend, s, err)
		}
		r.stop()
	}
	r.config.Zones.Mode = "off"
	r.start()
	if out := r.rules(); out != "" {
		t.Errorf("mode off leaves\n%s", out)
	}
}

func TestCleanupTakesTheRulesOfBothFilters(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		r := newRig(t, func(c *Config) { c.Zones.Backend = backend })
		r.write("policy.yaml", rigPolicy)
		r.start()
		r.stop()
		if !r.sshOpen() {
			t.Errorf("the rules went with the agent:\n%s", r.rules())
		}
		if cgroup, err := testenv.CgroupRoot(); err != nil || cgroup == "" {
			t.Skip("needs cgroup v2")
		}
		if _, err := cleanFilter(t.Context(), backend); err != nil {
			t.Fatal(err)
		}
		if out := r.rules(); out != "" {
			t.Errorf("left:\n%s", out)
		}
	})
}

func TestTheKeptZonesAreEnforcedWithoutAnAgent(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		r := newRig(t, func(c *Config) { c.Zones.Backend = backend })
		log := slog.New(slog.DiscardHandler)
		if what, err := Enforce(t.Context(), r.config, log); err != nil || !strings.Contains(what, "nothing is enforced") || r.rules() != "" {
			t.Errorf("without a snapshot: got %q, %v, rules %q", what, err, r.rules())
		}
		r.write("policy.yaml", rigPolicy)
		r.start()
		if _, err := Enforce(t.Context(), r.config, log); err == nil {
			t.Error("it ran beside an agent")
		}
		r.stop()
		if _, err := cleanFilter(t.Context(), backend); err != nil { // as after a boot
			t.Fatal(err)
		}
		what, err := Enforce(t.Context(), r.config, log)
		if err != nil || !strings.Contains(what, backend) || !r.sshOpen() {
			t.Errorf("got %q, %v, rules\n%s", what, err, r.rules())
		}
	})
}
