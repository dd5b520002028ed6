package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weirproject/weir/api"
)

// TestMain has the times that are shown in UTC, before anybody looks at a clock.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

var update = flag.Bool("update", false, "write the golden files anew")

// run runs a command line and returns what it wrote and its exit code.
func run(t *testing.T, environment map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, talk bytes.Buffer
	c := &cli{stdout: &out, stderr: &talk, getenv: func(name string) string { return environment[name] }, now: func() time.Time { return noon }}
	code = c.run(t.Context(), args)
	return out.String(), talk.String(), code
}

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestOutputsInEveryFormat(t *testing.T) {
	tests := []struct {
		name   string
		agent  agent
		args   []string
		code   int
		stderr string
	}{
		{"status", agent{status: healthy()}, []string{"status"}, 0, ""},
		{"status-degraded", agent{status: broken()}, []string{"status"}, 1, "weir: the node is degraded: 2 faults in the state's files, vip failed\n"},
		{"vip-list", agent{vips: services()}, []string{"vip", "list"}, 0, ""},
		{"vip-list-empty", agent{}, []string{"vip", "list"}, 0, ""},
		{"vip-show", agent{vips: services()}, []string{"vip", "show", "web.shop"}, 0, ""},
		{"vip-show-udp", agent{vips: services()}, []string{"vip", "show", "dns", "--protocol", "udp"}, 0, ""},
		{"vip-explain", agent{}, []string{"vip", "explain", "web.shop"}, 0, ""},
		{"vip-explain-fails", agent{}, []string{"vip", "explain", "gone.shop"}, 1, "weir: the VIP does not work; see the last step\n"},
		{"vip-trace", agent{}, []string{"vip", "trace", "198.18.3.7:80", "--client", "10.80.0.13"}, 0, ""},
		{"vip-conns", agent{}, []string{"vip", "conns"}, 0, ""},
		{"vip-drain", agent{vips: services()}, []string{"vip", "drain", "web.shop", "10.80.0.11:8080"}, 0, ""},
		{"vip-drain-undo", agent{vips: services()}, []string{"vip", "drain", "web.shop", "10.80.0.11:8080", "--undo"}, 0, ""},
		{"vip-top", agent{vips: services()}, []string{"vip", "top", "--rounds", "1", "--every", "100ms"}, 0, ""},
		{"dns-explain", agent{}, []string{"dns", "explain", "web.shop.weir.internal"}, 0, ""},
		{"dns-cache", agent{}, []string{"dns", "cache"}, 0, ""},
		{"dns-top", agent{}, []string{"dns", "top"}, 0, ""},
		{"dns-upstreams", agent{}, []string{"dns", "upstreams"}, 0, ""},
		{"dns-trace", agent{}, []string{"dns", "trace", "example.com"}, 0, ""},
		{"dns-flush", agent{}, []string{"dns", "flush", "example.com"}, 0, ""},
		{"dns-query", agent{}, []string{"dns", "query", "web.shop.vip.weir.internal"}, 0, ""},
		{"dns-query-srv", agent{}, []string{"dns", "query", "_web._tcp.shop.vip.weir.internal", "srv"}, 0, ""},
		{"dns-query-nxdomain", agent{}, []string{"dns", "query", "gone.example", "AAAA"}, 0, ""},
		{"zone-explain-deny", agent{}, []string{"zone", "explain", "203.0.113.9", "private", "tcp/22"}, 0, ""},
		{"zone-explain-allow", agent{}, []string{"zone", "explain", "public", "a1", "udp/8000-8100"}, 0, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket := test.agent.start(t)
			var texts [3]string
			for i, format := range formats {
				stdout, stderr, code := run(t, nil, append(test.args, "--socket", socket, "-o", format)...)
				if code != test.code || stderr != test.stderr {
					t.Errorf("%s: got exit %d and %q, want %d and %q", format, code, stderr, test.code, test.stderr)
				}
				golden(t, test.name+"."+map[string]string{"table": "txt", "json": "json", "yaml": "yaml"}[format], stdout)
				texts[i] = stdout
			}
			var fromJSON, fromYAML any
			if err := json.Unmarshal([]byte(texts[1]), &fromJSON); err != nil {
				t.Error(err)
			}
			if err := yaml.Unmarshal([]byte(texts[2]), &fromYAML); err != nil {
				t.Error(err)
			}
			again, _ := json.Marshal(fromYAML) // numbers and times as JSON has them
			_ = json.Unmarshal(again, &fromYAML)
			if !reflect.DeepEqual(fromJSON, fromYAML) {
				t.Errorf("yaml tells\n%v\nbut json\n%v", fromYAML, fromJSON)
			}
		})
	}
}

func TestJSONIsTheAPIsOwn(t *testing.T) {
	socket := (&agent{status: broken(), vips: services()}).start(t)
	out, _, _ := run(t, nil, "status", "-o", "json", "--socket", socket)
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil || !reflect.DeepEqual(s, broken()) {
		t.Errorf("status: got %+v, %v", s, err)
	}
	out, _, _ = run(t, nil, "vip", "list", "-o", "json", "--socket", socket)
	var all []api.VIPStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil || !reflect.DeepEqual(all, services()) {
		t.Errorf("vips: got %+v, %v", all, err)
	}
}

func TestStringsThatLookLikeOtherThingsStayStringsInYAML(t *testing.T) {
	value := map[string]any{"a": "80", "b": "true", "c": "null", "d": "1e3", "e": "2026-01-01", "f": "x: y", "g": "<&>\u2028é😀", "h": "", "i": "- x\n\ty", "j": "0x1f", "k": []string{}, "l": nil}
	text, err := asYAML(value)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range value {
		if s, isString := want.(string); isString && got[key] != s {
			t.Errorf("%s: got %#v, want %q", key, got[key], s)
		}
	}
}

func TestExitCodes(t *testing.T) {
	a := &agent{status: healthy(), vips: services()}
	socket := a.start(t)
	tests := []struct {
		args string
		code int
		talk string // part of stderr
	}{
		{"", 0, ""},
		{"--help", 0, ""},
		{"vip --help", 0, ""},
		{"version", 0, ""},
		{"status extra", 2, `unexpected argument "extra"`},
		{"status --nonsense", 2, "unknown flag: --nonsense"},
		{"status -o xml", 2, `--output "xml" is none of table, json, yaml`},
		{"statsu", 2, `there is no command "weir statsu"; did you mean status? (see weir --help)`},
		{"vip", 2, "vip needs a verb: list, show"},
		{"vip lits", 2, `there is no command "weir vip lits"; did you mean list?`},
		{"vip show", 2, "got 0 arguments, want one: NAME"},
		{"vip show a b", 2, "got 2 arguments"},
		{"vip show dns", 2, `the service "dns" has tcp and udp: add --protocol`},
		{"vip show dns --protocol sctp", 2, "neither tcp nor udp"},
		{"vip show nothing.shop", 1, `there is no service "nothing.shop"; weir vip list`},
		{"vip show web", 1, `there is no service "web"; did you mean web.shop?`},
		{"vip show web.shop --protocol udp", 1, `there is no udp service "web.shop"`},
		{"dns query", 2, "one or two: NAME [TYPE]"},
		{"dns query web NONSENSE", 1, `"NONSENSE" is no type of DNS record`},
		{"zone explain a b", 2, "three: FROM TO PORT"},
		{"zone explain a b tcp/x", 2, `PORT: "tcp/x" is not one of`},
		{"zone explain nowhere b tcp/1", 1, "it is no address, node or zone"},
		{"completion tcsh", 2, `"tcsh" is none of bash, zsh, fish, powershell`},
		{"completion", 2, "bash, zsh, fish, powershell"},
	}
	for _, test := range tests {
		stdout, stderr, code := run(t, map[string]string{"WEIR_SOCKET": socket}, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stderr, test.talk) || (test.talk == "") != (stderr == "") {
			t.Errorf("weir %s: got exit %d and %q, want %d and %q", test.args, code, stderr, test.code, test.talk)
		}
		if (stdout == "") != (code != 0) {
			t.Errorf("weir %s: wrote %q to stdout", test.args, stdout)
		}
	}
}

func TestAnAbsentAgentIsNamed(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, args := range []string{"status", "vip list", "vip show web", "dns query web", "zone explain a b tcp/1"} {
		stdout, stderr, code := run(t, map[string]string{"WEIR_SOCKET": "/nonexistent"}, append(strings.Fields(args), "--socket", socket)...)
		want := "weir: the agent is not running on this node (no " + socket + "): start it with systemctl start weir-agent\n"
		if code != 1 || stderr != want || stdout != "" {
			t.Errorf("weir %s: got exit %d, %q and %q, want 1 and %q", args, code, stdout, stderr, want)
		}
	}
}

func TestANodeThatLagsBehindIsDegraded(t *testing.T) {
	lagging := healthy()
	lagging.Revision = 40
	for want, s := range map[string]api.Status{
		"weir: the node is degraded: revision 41 is not applied yet\n": lagging,
		"weir: the node is degraded: no whole state was read yet\n":    {Node: api.Node{Name: "a1"}, Version: "v0.1.0"},
	} {
		stdout, stderr, code := run(t, nil, "status", "--socket", (&agent{status: s}).start(t))
		if code != 1 || stderr != want || !strings.HasPrefix(stdout, "Node") {
			t.Errorf("got exit %d, %q and\n%s", code, stderr, stdout)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	c := &cli{getenv: os.Getenv}
	root := c.root()
	commands := root.Commands()
	for _, noun := range root.Commands() {
		commands = append(commands, noun.Commands()...)
	}
	for _, cmd := range append(commands, root) {
		if cmd.Name() == "help" {
			continue
		}
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if !strings.HasPrefix(line, "  "+cmd.CommandPath()) && cmd != root {
				t.Errorf("%s: the example %q shows another command", cmd.CommandPath(), line)
			}
			words := strings.Fields(line)
			if found, _, err := root.Find(words[1:]); err != nil || found == root {
				t.Errorf("%s: the example %q runs nothing", cmd.CommandPath(), line)
			}
		}
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s has no purpose or no example", cmd.CommandPath())
		}
	}
}

func TestVersion(t *testing.T) {
	out, _, code := run(t, nil, "version")
	if code != 0 || !strings.HasPrefix(out, "weir ") || !strings.Contains(out, "go1.") {
		t.Errorf("got exit %d and %q", code, out)
	}
	out, _, _ = run(t, nil, "version", "-o", "yaml")
	if !strings.HasPrefix(out, "version: ") {
		t.Errorf("got %q", out)
	}
}

func TestQueriesReachTheAgentAsTheyAre(t *testing.T) {
	a := &agent{}
	socket := a.start(t)
	run(t, nil, "dns", "query", "a&b c.example", "ptr", "--socket", socket)
	if want := "/v1/dns/query?name=a%26b+c.example&type=PTR"; a.asked != want {
		t.Errorf("got %s, want %s", a.asked, want)
	}
}
