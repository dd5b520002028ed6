package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// asCommand makes the test binary weir-lab itself: exec replaces the process.
const asCommand = "WEIR_LAB_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

const labText = `name: cli
networks: {private: 10.80.0.0/24}
hosts:
- {name: a1, zone: private, networks: {private: 10.80.0.11}}
- {name: a2, zone: private, networks: {private: 10.80.0.12}}
`

// commands runs weir-lab on labs of the test's own.
type commands struct {
	t    *testing.T
	root string
	file string
}

func newCommands(t *testing.T) commands {
	t.Helper()
	testenv.NeedNetns(t)
	c := commands{t, fmt.Sprintf("/run/weir-test-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffffff), filepath.Join(t.TempDir(), "lab.yaml")}
	if err := os.WriteFile(c.file, []byte(labText), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := testenv.DownAll(context.Background(), c.root); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c commands) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--root", c.root}, args...)...)
	// The race detector would keep every command for a second at its end.
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// run returns standard output, standard error and the exit status.
func (c commands) run(args ...string) (stdout, stderr string, code int) {
	cmd := c.command(args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

// must fails the test unless the command succeeds, and returns its output.
func (c commands) must(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("weir-lab %s: exit status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func TestExecIsTheCommandItself(t *testing.T) {
	c := newCommands(t)
	c.must("up", "-f", c.file)
	for _, test := range []struct {
		args   []string
		code   int
		stdout string
	}{
		{[]string{"exec", "a1", "--", "hostname"}, 0, "a1\n"},
		{[]string{"exec", "a1", "sh", "-c", "exit 37"}, 37, ""},
		{[]string{"exec", "--lab", "cli", "a1", "--", "echo", "--", "-x"}, 0, "-- -x\n"},
		{[]string{"exec", "a1", "--lab", "cli", "--", "echo", "--detach"}, 0, "--detach\n"},
		{[]string{"exec", "a1", "--", "no-such-command"}, 127, ""},
		{[]string{"exec", "a1", "--", "/no/such/command"}, 127, ""},
		{[]string{"exec", "a1", "--", "/etc/hosts"}, 126, ""},
		{[]string{"exec", "a1"}, 2, ""},
		{[]string{"exec", "a9", "--", "true"}, 1, ""},
		{[]string{"exec", "--lab", "none", "a1", "--", "true"}, 1, ""},
	} {
		stdout, stderr, code := c.run(test.args...)
		if code != test.code || stdout != test.stdout {
			t.Errorf("%q: got status %d, %q, want %d, %q\n%s", test.args, code, stdout, test.code, test.stdout, stderr)
		}
	}
	cat := c.command("exec", "a1", "--", "cat")
	cat.Stdin, cat.Dir = strings.NewReader("through"), "/usr"
	if out, err := cat.Output(); err != nil || string(out) != "through" {
		t.Errorf("stdin: got %q, %v", out, err)
	}
	pwd := c.command("exec", "a1", "--", "pwd")
	pwd.Dir = "/usr"
	if out, err := pwd.Output(); err != nil || string(out) != "/usr\n" {
		t.Errorf("folder: got %q, %v", out, err)
	}
}

func TestExecTakesSignals(t *testing.T) {
	c := newCommands(t)
	c.must("up", "-f", c.file)
	cmd := c.command("exec", "a1", "--", "sh", "-c", `trap "exit 9" TERM; echo ready; while :; do sleep 0.02; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("got %s, want the status that the trap gives", cmd.ProcessState)
	}
}

func TestLifeOfALab(t *testing.T) {
	c := newCommands(t)
	if got := c.must("list"); got != "LAB  STATE  HOSTS  FILE\n" {
		t.Errorf("list without labs: got %q", got)
	}
	if _, stderr, code := c.run("show"); code != 1 || !strings.Contains(stderr, "no lab is up") {
		t.Errorf("show without labs: got %d, %s", code, stderr)
	}
	if got := c.must("up", "-f", c.file); !strings.HasPrefix(got, `lab "cli" is up: 2 hosts in `) {
		t.Errorf("up: got %q", got)
	}
	if _, stderr, code := c.run("up", "-f", c.file); code != 1 || stderr != "weir-lab: lab \"cli\" is already up: run weir-lab down cli first\n" {
		t.Errorf("second up: got %d, %s", code, stderr)
	}
	c.must("cut", "a1", "a2", "--one-way")
	if got := c.must("show"); !strings.Contains(got, "a1    up     agent  private  private 10.80.0.11  -\n") || !strings.Contains(got, "cut: nothing passes from a1 to a2\n") {
		t.Errorf("show: got\n%s", got)
	}
	c.must("heal", "a1")
	c.must("kill", "a1", "--power")
	var labs []summary
	if err := json.Unmarshal([]byte(c.must("list", "-o", "json")), &labs); err != nil || len(labs) != 1 || labs[0].State != "degraded" || labs[0].Hosts != 2 {
		t.Errorf("list: got %+v, %v", labs, err)
	}
	c.must("start", "a1")
	c.must("up", "-f", c.file, "--lab", "second")
	if _, stderr, code := c.run("exec", "a1", "true"); code != 2 || !strings.Contains(stderr, "say --lab with one of [cli second]") {
		t.Errorf("exec with two labs: got %d, %s", code, stderr)
	}
	if got := c.must("exec", "--lab", "second", "a1", "hostname"); got != "a1\n" {
		t.Errorf("exec in the second lab: got %q", got)
	}
	if got := c.must("down", "second") + c.must("down"); got != "lab \"second\" is down\nlab \"cli\" is down\n" {
		t.Errorf("down: got %q", got)
	}
	if _, _, code := c.run("down", "cli"); code != 1 {
		t.Errorf("down of what is down: got %d, want 1", code)
	}
	if _, err := os.Stat(c.root); err == nil {
		t.Error("the folder of labs is left")
	}
}

func TestServeLoadAndLogs(t *testing.T) {
	c := newCommands(t)
	c.must("up", "-f", c.file)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for protocol, port := range map[string]string{"http": "80", "tcp": "81", "udp": "82"} {
		c.must("exec", "a1", "--detach", protocol, "--", self, "serve", protocol, "10.80.0.11:"+port, "--name", "web")
	}
	url := "http://10.80.0.11/"
	eventually(t, func() bool {
		_, _, code := c.run("exec", "a2", "--", self, "load", url, "--rate", "1", "--duration", "1s")
		return code == 0
	})
	var r result
	if err := json.Unmarshal([]byte(c.must("exec", "a2", "--", self, "load", url, "--rate", "100", "--duration", "300ms", "-o", "json")), &r); err != nil {
		t.Fatal(err)
	}
	if r.OK != 30 || r.Failed != 0 || r.Answers["web"] != 30 {
		t.Errorf("load: got %+v", r)
	}
	if got := c.must("exec", "a2", "--", "bash", "-c", "cat < /dev/tcp/10.80.0.11/81"); !strings.HasPrefix(got, "web 10.80.0.12:") {
		t.Errorf("tcp: got %q", got)
	}
	if got := c.must("exec", "a2", "--", "bash", "-c", "exec 3<>/dev/udp/10.80.0.11/82; echo echo >&3; head -n1 <&3"); got != "echo\n" {
		t.Errorf("udp: got %q", got)
	}
	c.must("kill", "a1", "--task", "http")
	if stdout, _, code := c.run("exec", "a2", "--", self, "load", url, "--rate", "10", "--duration", "200ms", "--retry", "1"); code != 1 || !strings.Contains(stdout, "error: connection refused  4\n") {
		t.Errorf("load without a server: got %d\n%s", code, stdout)
	}
	c.must("exec", "a1", "--detach", "talk", "--", "sh", "-c", "echo one; sleep 0.3; echo two")
	follow := c.command("logs", "a1", "talk", "-f")
	var out bytes.Buffer
	follow.Stdout = &out
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(700 * time.Millisecond)
	c.must("down") // ends logs -f
	if err := follow.Wait(); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("logs: got %q, %v", out.String(), err)
	}
}

func TestWrongUsageIsStatusTwo(t *testing.T) {
	c := newCommands(t)
	for _, args := range []string{
		"nonsense", "up", "up -f x extra", "list extra", "list --nope", "list -o yaml", "down --all x", "exec", "shell", "kill",
		"kill a1 --agent --power", "cut", "heal a b c", "serve http", "serve gopher :1", "load", "load http://x --rate 0", "start a b",
	} {
		if _, stderr, code := c.run(strings.Fields(args)...); code != 2 || !strings.HasPrefix(stderr, "weir-lab: wrong usage: ") {
			t.Errorf("weir-lab %s: got status %d, %s", args, code, stderr)
		}
	}
	if err := os.WriteFile(c.file, []byte("name: x\nhosts: 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := c.run("up", "-f", c.file); code != 1 || stderr != "weir-lab: "+c.file+":2:8: hosts: "+strings.SplitN(stderr, "hosts: ", 2)[1] {
		t.Errorf("bad lab file: got status %d, %s", code, stderr)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, cmd := range command().Commands() {
		if name := cmd.Name(); cmd.Short == "" || cmd.Example == "" && name != "help" && name != "completion" {
			t.Errorf("%s lacks a purpose or an example", name)
		}
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not come true within 5s")
		}
	}
}
