package owner

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	ten    = netip.MustParseAddr("198.18.0.10")
	eleven = netip.MustParseAddr("198.18.0.11")
	six    = netip.MustParseAddr("fd77:6569:7200::10")
)

func newHook(t *testing.T, o HookOptions) *Hook {
	t.Helper()
	h, err := NewHook(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func setHook(t *testing.T, h *Hook, served ...Served) {
	t.Helper()
	if err := h.Set(served); err != nil {
		t.Fatal(err)
	}
}

// content is the files of a folder by name.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

func TestHookFilesTellWhatIsServed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "edge")
	h := newHook(t, HookOptions{Dir: dir})
	setHook(t, h, Served{VIP: six, Up: true, Owner: true}, Served{VIP: eleven, Reason: "no backend is up"}, Served{VIP: ten, Up: true})
	got := content(t, dir)
	for name, want := range map[string]string{
		"198.18.0.10.state": "up\n", "198.18.0.11.state": "down\n", "fd77:6569:7200::10.state": "up\n",
		BirdFile4: "route 198.18.0.10/32 blackhole;\n",
		BirdFile6: "route fd77:6569:7200::10/128 blackhole;\n",
		HookFile: `{
  "vips": [
    {
      "vip": "198.18.0.10",
      "up": true,
      "owner": false
    },
    {
      "vip": "198.18.0.11",
      "up": false,
      "owner": false,
      "reason": "no backend is up"
    },
    {
      "vip": "fd77:6569:7200::10",
      "up": true,
      "owner": true
    }
  ]
}
`,
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 6 {
		t.Errorf("files are %v", got)
	}
}

func TestHookTouchesOnlyWhatChanges(t *testing.T) {
	dir := t.TempDir()
	h := newHook(t, HookOptions{Dir: dir})
	setHook(t, h, Served{VIP: ten, Up: true}, Served{VIP: eleven, Up: true})
	old := time.Now().Add(-time.Hour)
	for name := range content(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	setHook(t, h, Served{VIP: ten, Up: true}, Served{VIP: eleven})
	for name, changed := range map[string]bool{"198.18.0.10.state": false, "198.18.0.11.state": true, BirdFile4: true, BirdFile6: false, HookFile: true} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.ModTime().Sub(old) > time.Minute; got != changed {
			t.Errorf("%s changed: %t, want %t", name, got, changed)
		}
	}
}

// recorder is a command that writes what it is told to a file.
func recorder(t *testing.T) (command []string, lines func() []string) {
	file := filepath.Join(t.TempDir(), "told")
	return []string{"/bin/sh", "-c", `echo "$WEIR_VIP $WEIR_STATE" >> "$0"`, file}, func() []string {
		data, _ := os.ReadFile(file)
		return strings.Fields(strings.ReplaceAll(string(data), " ", "="))
	}
}

func runHook(t *testing.T, h *Hook) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestHookCommandIsToldChanges(t *testing.T) {
	command, lines := recorder(t)
	dir := t.TempDir()
	h := newHook(t, HookOptions{Dir: dir, Command: command})
	runHook(t, h)
	for _, c := range []struct {
		served []Served
		want   string
	}{
		{[]Served{{VIP: ten, Up: true}, {VIP: six}}, "198.18.0.10=up fd77:6569:7200::10=down"},
		{[]Served{{VIP: ten, Up: true}, {VIP: six, Up: true}}, "fd77:6569:7200::10=up"},
		{[]Served{{VIP: six, Up: true}}, "198.18.0.10=down"},
	} {
		before := len(lines())
		setHook(t, h, c.served...)
		want := strings.Fields(c.want)
		eventually(t, func() bool { return len(lines()) >= before+len(want) }, func() string { return fmt.Sprintf("told %v, want %v after %d", lines(), want, before) })
		if got := strings.Join(lines()[before:], " "); got != c.want {
			t.Errorf("told %s, want %s", got, c.want)
		}
	}
	eventually(t, func() bool { return content(t, dir)["198.18.0.10.state"] == "" }, func() string { return "an address that is served no more keeps its file" })
}

func TestHookTakesDownWhatAnEarlierProcessTold(t *testing.T) {
	dir := t.TempDir()
	setHook(t, newHook(t, HookOptions{Dir: dir}), Served{VIP: ten, Up: true}, Served{VIP: eleven, Up: true})
	command, lines := recorder(t)
	h := newHook(t, HookOptions{Dir: dir, Command: command})
	setHook(t, h, Served{VIP: ten, Up: true})
	runHook(t, h)
	eventually(t, func() bool { return len(lines()) == 2 }, func() string { return fmt.Sprintf("told %v", lines()) })
	if got := strings.Join(lines(), " "); got != "198.18.0.10=up 198.18.0.11=down" {
		t.Errorf("told %s", got)
	}
}

func TestFailedHookCommandIsRunAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tries")
	h := newHook(t, HookOptions{Dir: t.TempDir(), Retry: 10 * time.Millisecond, Command: []string{"/bin/sh", "-c", `echo x >> "$0"; [ $(wc -l < "$0") -ge 3 ]`, file}})
	setHook(t, h, Served{VIP: ten, Up: true})
	runHook(t, h)
	tries := func() int { data, _ := os.ReadFile(file); return strings.Count(string(data), "x") }
	eventually(t, func() bool { return tries() == 3 }, func() string { return fmt.Sprintf("tried %d times", tries()) })
	time.Sleep(100 * time.Millisecond)
	if n := tries(); n != 3 {
		t.Errorf("tried %d times, want 3", n)
	}
}

func TestHangingHookCommandIsEnded(t *testing.T) {
	h := newHook(t, HookOptions{Dir: t.TempDir(), Timeout: 50 * time.Millisecond, Command: []string{"/bin/sleep", "60"}})
	if err := h.command(t.Context(), ten, StateUp); err == nil {
		t.Error("a command that hangs succeeds")
	}
}

func TestHookOptionsAreChecked(t *testing.T) {
	for _, o := range []HookOptions{{}, {Dir: "edge"}, {Dir: "/proc/none/edge"}, {Dir: t.TempDir(), Timeout: -1}} {
		if _, err := NewHook(o); err == nil {
			t.Errorf("NewHook(%+v) works", o)
		}
	}
	dir := t.TempDir()
	h := newHook(t, HookOptions{Dir: filepath.Join(dir, "edge")})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Set([]Served{{VIP: ten}}); err == nil {
		t.Error("Set without its folder works")
	}
}

// eventually waits until ok, and says what was there instead when that takes
// too long.
func eventually(t *testing.T, ok func() bool, instead func() string) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal(instead())
		}
	}
}
