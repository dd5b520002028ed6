package testenv

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHostHasItsOwnViewAndWires(t *testing.T) {
	l := ForTest(t, plain, Options{})
	for what, test := range map[string]struct{ command, want string }{
		"hostname":              {"hostname", "a1"},
		"interfaces":            {"ls /sys/class/net", "lo\nprivate\nsix"},
		"hosts":                 {"getent hosts a1", "fd00:80::11     a1"},
		"no names":              {"grep -c nameserver /etc/resolv.conf || true", "0"},
		"cgroup":                {"grep ^0:: /proc/self/cgroup", "0::/weir-lab/" + l.name + "/a1"},
		"own bpffs":             {"stat -f -c %T /sys/fs/bpf", "bpf_fs"},
		"own run folder":        {"stat -f -c %T /run/weir", "tmpfs"},
		"no route out":          {"ip route show default", ""},
		"cgroups stay in reach": {"stat -f -c %T " + l.cgroups, "cgroup2fs"},
	} {
		if got := strings.TrimSpace(output(t, l, "a1", "sh", "-c", test.command)); got != test.want {
			t.Errorf("%s: got %q, want %q", what, got, test.want)
		}
	}
	if got := output(t, l, "client", "ip", "route", "show", "default"); !strings.HasPrefix(got, "default via 203.0.113.31 dev public") {
		t.Errorf("gateway: got %q", got)
	}
	for address, want := range map[string]bool{"10.80.0.12": true, "10.80.0.13": true, "fd00:80::12": true, "10.80.0.31": true, "203.0.113.9": false} {
		if got := reaches(l, "a1", address); got != want {
			t.Errorf("a1 reaches %s: got %t, want %t", address, got, want)
		}
	}
}

func TestCommandPassesStreamsStatusAndFolder(t *testing.T) {
	l := ForTest(t, plain, Options{})
	cmd := l.Command("a1", "sh", "-c", "cat; pwd; echo oops >&2; exit 37")
	cmd.Stdin = strings.NewReader("through\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 37 {
		t.Errorf("status: got %v, want 37", err)
	}
	here, _ := os.Getwd()
	if got, want := string(out), "through\n"+here+"\n"; got != want {
		t.Errorf("output: got %q, want %q", got, want)
	}
	if stderr.String() != "oops\n" {
		t.Errorf("stderr: got %q", stderr.String())
	}
	sleeper := l.Command("a1", "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("signal: got %v", err)
	}
	if _, err := l.Command("a9", "true").Output(); err == nil || !strings.Contains(err.Error(), `no host "a9"; its hosts are [a1 a2 p1 client]`) {
		t.Errorf("unknown host: got %v", err)
	}
}

func TestDetachedCommandsAreListedAndDieWithTheirHost(t *testing.T) {
	l, ctx := ForTest(t, plain, Options{}), t.Context()
	if err := l.Detach(ctx, "a1", "web", "sh", "-c", "echo serving; sleep 60; true"); err != nil {
		t.Fatal(err)
	}
	if err := l.Detach(ctx, "a1", "web", "true"); err == nil || !strings.Contains(err.Error(), "web runs already on host a1") {
		t.Errorf("a second of the same name: got %v", err)
	}
	eventually(t, func() bool {
		data, _ := os.ReadFile(l.LogFile("a1", "web"))
		return string(data) == "serving\n"
	})
	status, err := l.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d := status.Hosts[0].Detached
	if len(d) != 1 || d[0].Name != "web" || !d[0].Running {
		t.Fatalf("status: got %+v", d)
	}
	if err := l.KillDetached(ctx, "a1", "web"); err != nil {
		t.Fatal(err)
	}
	if l.detached("a1")[0].Running {
		t.Error("web runs after it was killed")
	}
	if err := l.Detach(ctx, "a1", "web", "sleep", "60"); err != nil {
		t.Fatal("the name did not serve again:", err)
	}
	pid := l.detached("a1")[0].PID
	if err := l.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if _, state, err := readStat(pid); err == nil && state != 'Z' {
		t.Error("web outlives its lab")
	}
}

func TestSecondUpIsRefusedAndLeavesTheFirst(t *testing.T) {
	l := ForTest(t, plain, Options{})
	_, err := Up(t.Context(), Options{File: l.Spec.File, Name: l.name})
	want := `lab "` + l.name + `" is already up: run weir-lab down ` + l.name + ` first`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	output(t, l, "a1", "true")
}

func TestLabsSideBySideDoNotMeet(t *testing.T) {
	one, other := ForTest(t, plain, Options{}), ForTest(t, plain, Options{})
	if err := one.Cut(t.Context(), "a1", "", false); err != nil {
		t.Fatal(err)
	}
	if reaches(one, "a1", "10.80.0.12") || !reaches(other, "a1", "10.80.0.12") {
		t.Error("a cut in one lab is not in that one alone")
	}
	if err := one.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if output(t, other, "a1", "sh", "-c", "ls /etc/weir"); !reaches(other, "a1", "10.80.0.12") {
		t.Error("the end of one lab hurt the other")
	}
	names, err := Names("")
	if err != nil {
		t.Fatal(err)
	}
	if list := strings.Join(names, " "); strings.Contains(list, one.name) || !strings.Contains(list, other.name) {
		t.Errorf("names: got %s", list)
	}
}

func TestCutsHoldAndHeal(t *testing.T) {
	l, ctx := ForTest(t, plain, Options{}), t.Context()
	check := func(what string, want map[string]bool) {
		t.Helper()
		for path, want := range want {
			from, to, _ := strings.Cut(path, ">")
			if want { // eventually: a missed neighbour is asked for once a second
				eventually(t, func() bool { return reaches(l, from, to) })
			} else if reaches(l, from, to) {
				t.Errorf("%s: %s reaches %s", what, from, to)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.Cut(ctx, "a1", "a2", false))
	check("both ways", map[string]bool{"a1>10.80.0.12": false, "a2>fd00:80::11": false, "a1>10.80.0.31": true})
	must(l.Heal(ctx, "a2", "a1"))
	check("healed", map[string]bool{"a1>10.80.0.12": true, "a2>fd00:80::11": true})

	must(l.Cut(ctx, "a1", "", false))
	check("from everybody", map[string]bool{"a1>10.80.0.31": false, "a2>10.80.0.11": false, "a2>10.80.0.31": true})
	must(l.Heal(ctx, "a1", "a2"))
	check("healed in part", map[string]bool{"a1>10.80.0.31": false, "a2>10.80.0.11": true})
	must(l.Heal(ctx, "", ""))
	check("healed all", map[string]bool{"a1>10.80.0.31": true})

	must(l.Cut(ctx, "a1", "a2", true))
	if a, b := counts(t, l, "a1", "10.80.0.12", "a2"), counts(t, l, "a2", "10.80.0.11", "a1"); a || !b {
		t.Errorf("one way: datagrams pass from a1 to a2: %t, want false; from a2 to a1: %t, want true", a, b)
	}
	cuts, err := l.Cuts()
	if err != nil || len(cuts) != 1 || cuts[0] != (Cut{"a1", "a2"}) {
		t.Errorf("cuts: got %v, %v", cuts, err)
	}
	if err := l.Cut(ctx, "a1", "a1", false); err == nil {
		t.Error("a host was cut from itself")
	}
	if err := l.Cut(ctx, "a1", "nobody", false); err == nil {
		t.Error("an unknown host was cut")
	}
}

// counts tells whether a datagram from one host reaches the other. The
// neighbour is given, since its discovery needs both directions.
func counts(t *testing.T, l *Lab, from, address, to string) bool {
	t.Helper()
	output(t, l, from, "ip", "neigh", "replace", address, "lladdr", l.mac(to, "private").String(), "dev", "private")
	var received bool
	err := l.Do(to, func() error {
		c, err := listenUDP(address)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := l.Do(from, func() error { return sendUDP(c.LocalAddr().String()) }); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _, err = c.ReadFrom(make([]byte, 1))
		received = err == nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return received
}

func TestPowerLossKeepsTheDiskAndStartBringsTheHostBack(t *testing.T) {
	l, ctx := ForTest(t, plain, Options{}), t.Context()
	output(t, l, "a1", "sh", "-c", "echo kept > /var/lib/weir/file; echo lost > /run/weir/file; mkdir /sys/fs/bpf/weir; (sleep 60 >/dev/null 2>&1 &)")
	if err := l.Cut(ctx, "a1", "p1", false); err != nil {
		t.Fatal(err)
	}
	if err := l.PowerOff(ctx, "a1"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Command("a1", "true").Output(); err == nil || !strings.Contains(err.Error(), "is off: run weir-lab start a1") {
		t.Errorf("a command on a host without power: got %v", err)
	}
	if isDir(l.hostCgroup("a1")) || reaches(l, "a2", "10.80.0.11") {
		t.Error("the host is still there")
	}
	if err := l.Start(ctx, "a1", 0); err != nil {
		t.Fatal(err)
	}
	if got := output(t, l, "a1", "sh", "-c", "cat /var/lib/weir/file; ls /run/weir; ls -d /sys/fs/bpf/weir || true"); !strings.HasPrefix(got, "kept\nls: ") {
		t.Errorf("after the start: got %q", got)
	}
	// Eventually: a2 asks for the neighbour that it missed once a second.
	eventually(t, func() bool { return reaches(l, "a2", "10.80.0.11") })
	if reaches(l, "a1", "10.80.0.31") {
		t.Error("the cut is gone")
	}
	if err := l.Start(ctx, "a1", 0); err == nil {
		t.Error("a running host was started")
	}
	if err := l.KillAgent(ctx, "a1"); err == nil || err.Error() != "host a1 runs no agent" {
		t.Errorf("kill of no agent: got %v", err)
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not come true within 5s")
		}
	}
}

func TestDownOfWhatIsNotUp(t *testing.T) {
	NeedNetns(t)
	if err := Down(context.Background(), testRoot(t), "nothing"); !errors.Is(err, ErrNotUp) {
		t.Errorf("got %v, want ErrNotUp", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "x"), "nothing"); !errors.Is(err, ErrNotUp) {
		t.Errorf("got %v, want ErrNotUp", err)
	}
}
