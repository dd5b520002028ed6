package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// zoneAgent answers about zones, with fixed values, and keeps what it was asked.
func zoneAgent(t *testing.T, asked *string) string {
	mux := http.NewServeMux()
	give := func(path string, value any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			var body json.RawMessage
			_ = json.NewDecoder(r.Body).Decode(&body)
			*asked = string(body)
			_ = json.NewEncoder(w).Encode(value)
		})
	}
	diff := api.ZoneDiff{
		Allowed: []api.ZoneFlow{{From: "office", To: "admin", Ports: []api.PortRange{{Protocol: "tcp", First: 22, Last: 22}, {Protocol: "tcp", First: 443, Last: 443}}}},
		Denied:  []api.ZoneFlow{{From: "any", To: "private", Ports: []api.PortRange{{Protocol: "any"}}, Family: "ipv6", Via: "public"}},
	}
	change := api.ZoneChange{ID: 7, Time: noon, By: "ann from 203.0.113.9", Summary: "opens office → admin tcp/22", State: api.ChangePending, Deadline: noon.Add(time.Minute)}
	before := api.ZoneChange{ID: 6, Time: noon.Add(-time.Hour), By: "the state's files", Summary: "the first policy", State: api.ChangeInForce}
	back := api.ZoneChange{ID: 5, Time: noon.Add(-2 * time.Hour), By: "bob", Summary: "closes office → admin tcp/22", State: api.ChangeRolledBack, Reason: "nobody confirmed it before its deadline"}
	give("GET "+client.PathZones, api.ZonesStatus{
		Mode: "enforce", Backend: "nftables", Reason: "nftables works here", Policy: true, File: "/etc/weir/state.d/policy.yaml", Line: 3, Pending: &change,
		Zones: []api.ZoneMembers{
			{Name: "empty"},
			{Name: "private", Here: true, Nodes: []string{"a1", "a2"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.80.0.11/32"), netip.MustParsePrefix("10.80.0.12/32")}, Size: 200},
		},
		Rules: []api.ZoneRule{{Name: "inner", Section: "rules", Verdict: api.Allow, Packets: 7, Bytes: 420}, {Name: "default-deny", Verdict: api.Deny, Packets: 1, Bytes: 60}},
	})
	give("GET "+client.PathZonesHistory, []api.ZoneChange{change, before, back})
	give("POST "+client.PathZonesCheck, []api.ZoneFinding{
		{File: "p.yaml", Line: 3, Column: 9, Field: "rules[0]", Reason: "never matches", Warning: true}, {File: "p.yaml", Line: 7, Column: 1, Field: "tests[0]", Reason: "expected deny"},
	})
	give("POST "+client.PathZonesDiff, diff)
	give("POST "+client.PathZonesApply, api.ZoneApplied{ZoneChange: change, Diff: diff, File: "/etc/weir/state.d/policy.yaml"})
	give("POST "+client.PathZonesConfirm, before)
	give("POST "+client.PathZonesRollback, api.ZoneApplied{ZoneChange: before, File: "/etc/weir/state.d/policy.yaml"})
	give("GET "+client.PathZonesExplain, api.ZoneExplained{
		ZoneExplanation: api.ZoneExplanation{From: "a1", To: "private", FromZones: []string{"private"}, ToZones: []string{"private"}, Port: api.PortRange{Protocol: "tcp", First: 80, Last: 80},
			Verdict: api.Allow, Rule: "inner", Reason: `rule "inner" allows it`, Nodes: []string{"a1", "a2"}},
		Field: "rules[0]", Hook: "input", File: "/etc/weir/state.d/policy.yaml", Line: 8,
	})
	give("GET "+client.PathZonesDrops, []api.ZoneDrop{
		{Time: noon, Rule: "default-deny", Verdict: "drop", Hook: "input", In: "eth0", Protocol: "tcp", From: netip.MustParseAddrPort("203.0.113.9:40000"), To: netip.MustParseAddrPort("10.80.0.11:22"),
			ToIs: api.ZoneIdentity{Nodes: []string{"a1"}, Apps: []string{"/shop/web"}, Zones: []string{"private", "shop"}}},
		{Time: noon, Rule: "ssh", Verdict: "accept", Hook: "input", Protocol: "icmp", From: netip.MustParseAddrPort("203.0.113.9:0"), To: netip.MustParseAddrPort("10.80.0.11:0")},
	})
	mux.HandleFunc("GET "+client.PathZonesMatrix, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("matrix as " + r.FormValue("format")))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// fileOf writes a file of the test.
func fileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestZoneCommandsShowWhatTheAgentSays(t *testing.T) {
	asked := ""
	agent := zoneAgent(t, &asked)
	p := fileOf(t, "kind: policy\n")
	for name, c := range map[string]struct {
		args string
		code int
	}{
		"zone-list": {"list", 0}, "zone-history": {"history", 0}, "zone-check": {"check " + p, 1}, "zone-diff": {"diff " + p, 0},
		"zone-apply": {"apply --confirm 60s " + p, 0}, "zone-confirm": {"confirm", 0}, "zone-rollback": {"rollback 6", 0},
		"zone-where": {"explain a1 private tcp/80", 0}, "zone-drops": {"drops", 0}, "zone-drops-accepted": {"drops --accepted", 0}, "zone-matrix": {"matrix -o dot", 0},
	} {
		stdout, stderr, code := run(t, map[string]string{"WEIR_SOCKET": agent}, append([]string{"zone"}, strings.Fields(c.args)...)...)
		if code != c.code || (stderr == "") != (code == 0) {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
		golden(t, name+".txt", stdout)
	}
}

func TestWhoAppliesIsToldToTheAgent(t *testing.T) {
	asked := ""
	agent := zoneAgent(t, &asked)
	environment := map[string]string{"WEIR_SOCKET": agent, "SUDO_USER": "ann", "USER": "root", "SSH_CONNECTION": "203.0.113.9 40000 10.80.0.11 22"}
	if _, stderr, code := run(t, environment, "zone", "apply", fileOf(t, "kind: policy\n"), "--confirm", "90s", "--force"); code != 0 {
		t.Fatal(stderr)
	}
	var a api.ZoneApply
	if err := json.Unmarshal([]byte(asked), &a); err != nil || a.By != "ann from 203.0.113.9" || a.SSH != environment["SSH_CONNECTION"] || a.Confirm.Std() != 90*time.Second || !a.Force || a.Text != "kind: policy\n" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestTheSSHSessionIsFoundBehindSudo(t *testing.T) {
	proc := t.TempDir()
	put := func(pid, file, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(proc, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	parent := itoa(os.Getppid())
	put(parent, "environ", "A=b\x00")
	put(parent, "stat", parent+" (su do) 1) S 4711 1 1")
	put("4711", "environ", "X=y\x00SSH_CONNECTION=203.0.113.9 1 10.0.0.1 22\x00")
	c := &cli{getenv: func(string) string { return "" }, proc: proc}
	if got := c.sshConnection(); got != "203.0.113.9 1 10.0.0.1 22" {
		t.Errorf("got %q", got)
	}
	if got := (&cli{getenv: c.getenv, proc: t.TempDir()}).sshConnection(); got != "" {
		t.Errorf("got %q where there is none", got)
	}
}

func itoa(n int) string { text, _ := json.Marshal(n); return string(text) }

const fleetState = "kind: node\nname: a1\naddresses: [10.80.0.11]\n---\nkind: node\nname: c1\nrole: controller\naddresses: [10.80.0.2]\n"

const cliPolicy = `kind: policy
zones:
  admin:   {nodes: {role: controller}}
  private: {nodes: {role: agent}}
rules:
- {name: inner, from: [admin, private], to: [private], allow: [any]}
tests:
- {from: admin, to: private, port: tcp/22, expect: allow}
`

func TestAPolicyIsCheckedWithoutAnAgent(t *testing.T) {
	state, nobody := fileOf(t, fleetState), map[string]string{"WEIR_SOCKET": filepath.Join(t.TempDir(), "none.sock")}
	for what, c := range map[string]struct {
		policy, out string
		state       bool
		code        int
	}{
		"good":             {cliPolicy, "nothing is wrong with it\n", true, 0},
		"a failing test":   {strings.Replace(cliPolicy, "expect: allow", "expect: deny", 1), ":8:3: tests[0]: expected deny of admin → private tcp/22, but rule \"inner\" allows it", true, 1},
		"an unknown name":  {strings.Replace(cliPolicy, "to: [private]", "to: [privat]", 1), `:6:46: rules[0].to[0]: there is no zone "privat"; zones are admin, private, any`, true, 1},
		"no YAML":          {"kind: policy\nzones: {", "is not YAML", true, 1},
		"an unused zone":   {strings.Replace(cliPolicy, "rules:", "  spare: {cidrs: [192.0.2.0/24]}\nrules:", 1), "warning: ", true, 0},
		"alone":            {cliPolicy, "nothing is wrong with it\n", false, 0},
		"alone, a bad one": {strings.Replace(cliPolicy, "to: [private]", "to: [privat]", 1), "there is no zone", false, 1},
	} {
		args := []string{"zone", "check", fileOf(t, c.policy)}
		if c.state {
			args = append(args, "--state", state)
		}
		stdout, stderr, code := run(t, nobody, args...)
		if code != c.code || !strings.Contains(stdout, c.out) {
			t.Errorf("%s: exit %d, %q, %q", what, code, stdout, stderr)
		}
		if !c.state && !strings.Contains(stderr, "the file is checked alone") {
			t.Errorf("%s: does not say that it is alone: %q", what, stderr)
		}
	}
}

func TestPoliciesAreComparedAndDrawnWithoutAnAgent(t *testing.T) {
	state, old := fileOf(t, fleetState), fileOf(t, cliPolicy)
	now := fileOf(t, strings.Replace(cliPolicy, "allow: [any]", "allow: [tcp/22]", 1))
	stdout, stderr, code := run(t, nil, "zone", "diff", now, "--against", old, "--state", state)
	if code != 0 || !strings.HasPrefix(stdout, "- admin, private → private: ") || strings.Contains(stdout, "+") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if stdout, _, _ := run(t, nil, "zone", "diff", old, "--against", old, "--state", state); stdout != "no flow is opened or closed\n" {
		t.Errorf("got %q", stdout)
	}
	for format, want := range map[string]string{"text": "admin", "dot": "digraph", "svg": "<svg", "html": "<html", "json": `"zones"`} {
		stdout, stderr, code := run(t, nil, "zone", "matrix", "--file", old, "--state", state, "-o", format)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit %d, %q, %q", format, code, stdout, stderr)
		}
	}
	if _, stderr, code := run(t, nil, "zone", "matrix", "-o", "yaml"); code != 2 || !strings.Contains(stderr, "is none of text, dot, svg, html, json") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if _, stderr, code := run(t, nil, "zone", "rollback", "x"); code != 2 || !strings.Contains(stderr, "is not a number") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestTheExamplesAreGood(t *testing.T) {
	const folder = "../../examples/zones/"
	for policy, fleet := range map[string]string{"three-zones.yaml": "fleet.yaml", "egress.yaml": "fleet.yaml", "apps.yaml": "apps-fleet.yaml"} {
		stdout, stderr, code := run(t, nil, "zone", "check", folder+policy, "--state", folder+fleet)
		if code != 0 || stdout != "nothing is wrong with it\n" {
			t.Errorf("%s: exit %d\n%s%s", policy, code, stdout, stderr)
		}
	}
}
