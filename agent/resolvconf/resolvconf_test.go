package resolvconf

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var proxy = Want{Servers: []netip.Addr{netip.MustParseAddr("169.254.53.53"), netip.MustParseAddr("fd77:6569:7264::53")}, Zones: []string{"corp.example", "weir.internal"}}

// place is a machine's files and commands, as far as they matter here.
type place struct {
	t        *testing.T
	dir      string
	o        Options
	now      time.Time
	commands []string
	// command does what the command would; nil: nothing.
	command func(stdin, name string, args ...string) error
}

func newPlace(t *testing.T, mode Mode) *place {
	p := &place{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	p.o = Options{
		Mode: mode, DataDir: p.path("data"), File: p.path("etc/resolv.conf"), DropIns: p.path("etc/systemd/resolved.conf.d"), Servers: p.path("run/systemd/resolve/resolv.conf"),
		Now:  func() time.Time { return p.now },
		Find: func(string) string { return "" },
		Run: func(_ context.Context, stdin, name string, args ...string) error {
			p.commands = append(p.commands, strings.Join(append([]string{name}, args...), " "))
			if p.command != nil {
				return p.command(stdin, name, args...)
			}
			return nil
		},
	}
	for _, dir := range []string{"data", "etc", "run/systemd/resolve"} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) read(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// lines are those that libc reads.
func (p *place) lines() string {
	var all []string
	for line := range strings.Lines(p.read("etc/resolv.conf")) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return strings.Join(all, "; ")
}

func (p *place) set(h *Host, want Outcome) {
	p.t.Helper()
	if got, err := h.Set(p.t.Context(), proxy); err != nil || got != want {
		p.t.Errorf("set: got %v, %v, want %v", got, err, want)
	}
}

func texts(all []netip.Addr) string {
	var b []string
	for _, a := range all {
		b = append(b, a.String())
	}
	return strings.Join(b, " ")
}

const dhcp = "# by dhclient\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\nsearch corp.example\noptions ndots:2 edns0\nsortlist 10.0.0.0/8\n"

func TestTheProxyIsAskedFirstAndTheHostsServersWhileItIsDown(t *testing.T) {
	p := newPlace(t, File)
	p.write("etc/resolv.conf", dhcp)
	if err := os.Chmod(p.o.File, 0o640); err != nil {
		t.Fatal(err)
	}
	h := New(p.o)
	p.set(h, Written)
	p.set(h, Same)
	want := "nameserver 169.254.53.53; nameserver 10.0.0.2; nameserver 10.0.0.3; search corp.example; options ndots:2 edns0 timeout:1; sortlist 10.0.0.0/8"
	if got := p.lines(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, _ := os.Stat(p.o.File); info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %s now", info.Mode())
	}
	if got := texts(h.Upstreams(proxy.Servers)); got != "10.0.0.2 10.0.0.3 10.0.0.4" {
		t.Errorf("upstreams: got %s", got)
	}
	if got := p.read("data/resolv.conf.original"); got != dhcp || h.Mode() != File || !slices.Equal(h.Search(), []string{"corp.example"}) {
		t.Errorf("kept %q, mode %s, search %v", got, h.Mode(), h.Search())
	}
	// An agent that starts again, and the one that cleans up.
	p.set(New(p.o), Same)
	if did, err := New(p.o).Restore(t.Context()); !did || err != nil {
		t.Errorf("restore: got %v, %v", did, err)
	}
	info, _ := os.Stat(p.o.File)
	if got := p.read("etc/resolv.conf"); got != dhcp || info.Mode().Perm() != 0o640 {
		t.Errorf("restored as %q, %s", got, info.Mode())
	}
	if left, _ := os.ReadDir(p.path("data")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if left, _ := os.ReadDir(p.path("etc")); len(left) != 1 {
		t.Errorf("files are left: %v", left)
	}
}

func TestWhatDHCPWritesIsTakenOverAndTheProxyPutBackFirst(t *testing.T) {
	p := newPlace(t, File)
	p.write("etc/resolv.conf", dhcp)
	h := New(p.o)
	p.set(h, Written)
	p.write("etc/resolv.conf", "nameserver 10.9.0.2\nsearch other.example\noptions timeout:3\n")
	if got := texts(h.Upstreams(nil)); got != "10.9.0.2" {
		t.Errorf("upstreams: got %s", got)
	}
	p.set(h, Repaired)
	if got, want := p.lines(), "nameserver 169.254.53.53; nameserver 10.9.0.2; search other.example; options timeout:3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAFightWithAnotherProgramEnds(t *testing.T) {
	p := newPlace(t, File)
	p.write("etc/resolv.conf", dhcp)
	h := New(p.o)
	p.set(h, Written)
	for range guardRewrites {
		p.write("etc/resolv.conf", dhcp)
		p.set(h, Repaired)
	}
	p.write("etc/resolv.conf", dhcp)
	for range 3 {
		if _, err := h.Set(t.Context(), proxy); err == nil || !strings.Contains(err.Error(), "left alone until") {
			t.Fatalf("got %v", err)
		}
		p.now = p.now.Add(2 * time.Second)
	}
	if p.read("etc/resolv.conf") != dhcp {
		t.Error("the file was written all the same")
	}
	p.now = p.now.Add(guardRest)
	p.set(h, Repaired)
}

func TestALinkIsFollowedWhileManagedAndPutBack(t *testing.T) {
	p := newPlace(t, File)
	p.write("run/dhcp", "nameserver 10.0.0.2\n")
	if err := os.Symlink("../run/dhcp", p.o.File); err != nil {
		t.Fatal(err)
	}
	h := New(p.o)
	p.set(h, Written)
	if got := p.read("run/dhcp"); got != "nameserver 10.0.0.2\n" {
		t.Errorf("the file behind the link was written: %q", got)
	}
	p.write("run/dhcp", "nameserver 10.0.0.7\n") // a new lease
	if got := texts(h.Upstreams(nil)); got != "10.0.0.7" {
		t.Errorf("upstreams: got %s", got)
	}
	p.set(h, Written)
	if got, want := p.lines(), "nameserver 169.254.53.53; nameserver 10.0.0.7; options timeout:1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if link, err := os.Readlink(p.o.File); link != "../run/dhcp" {
		t.Errorf("restored as %q, %v", link, err)
	}
}

func TestNothingOfAnothersIsTouchedWhileUnmanaged(t *testing.T) {
	p := newPlace(t, Off)
	p.write("etc/resolv.conf", dhcp)
	p.set(New(p.o), Same)
	if got := p.read("etc/resolv.conf"); got != dhcp {
		t.Errorf("got %q", got)
	}
	// Switched off again after a time on: what was there comes back, unless its
	// owner has written a file of their own since.
	p.o.Mode = File
	p.set(New(p.o), Written)
	p.o.Mode = Off
	p.set(New(p.o), Same)
	if got := p.read("etc/resolv.conf"); got != dhcp {
		t.Errorf("switched off: got %q", got)
	}
	p.o.Mode = File
	p.set(New(p.o), Written)
	p.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
	p.o.Mode = Off
	p.set(New(p.o), Same)
	if got := p.read("etc/resolv.conf"); got != "nameserver 192.0.2.1\n" {
		t.Errorf("a user's edit was lost: %q", got)
	}
}

func TestAFileThatWasNotThereIsRemovedAgain(t *testing.T) {
	p := newPlace(t, Auto)
	h := New(p.o)
	p.set(h, Written)
	if got, want := p.lines(), "nameserver 169.254.53.53; options timeout:1"; got != want || len(h.Upstreams(nil)) != 0 {
		t.Errorf("got %s with upstreams %v", got, h.Upstreams(nil))
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.o.File); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestOwnAddressesAreNeverUpstreams(t *testing.T) {
	p := newPlace(t, Off)
	p.write("etc/resolv.conf", "nameserver 169.254.53.53\nnameserver fd77:6569:7264::53\nnameserver 10.0.0.2\nnameserver nonsense\nnameserver 10.0.0.2\n")
	if got := texts(New(p.o).Upstreams(proxy.Servers)); got != "10.0.0.2" {
		t.Errorf("got %s", got)
	}
	// systemd-resolved's own address stands for those that it asks.
	p.write("etc/resolv.conf", "nameserver 127.0.0.53\n")
	p.write("run/systemd/resolve/resolv.conf", "nameserver 169.254.53.53\nnameserver 10.0.0.9\n")
	if got := texts(New(p.o).Upstreams(proxy.Servers)); got != "10.0.0.9" {
		t.Errorf("got %s", got)
	}
}

func TestResolvconfListsTheProxyFirst(t *testing.T) {
	p := newPlace(t, Auto)
	p.o.Find = func(string) string { return "/usr/sbin/resolvconf" }
	const generated = "# by resolvconf(8)\nnameserver 10.0.0.2\nsearch corp.example\n"
	p.write("etc/resolv.conf", generated)
	p.command = func(stdin, _ string, args ...string) error {
		if args[0] == "-a" {
			p.write("etc/resolv.conf", "# by resolvconf(8)\n"+stdin+"nameserver 10.0.0.2\nsearch corp.example\n")
		} else {
			p.write("etc/resolv.conf", generated)
		}
		return nil
	}
	h := New(p.o)
	p.set(h, Written)
	p.set(h, Same)
	if got := texts(h.Upstreams(proxy.Servers)); got != "10.0.0.2" || h.Mode() != Resolvconf {
		t.Errorf("upstreams %s, mode %s", got, h.Mode())
	}
	if did, err := New(p.o).Restore(t.Context()); !did || err != nil {
		t.Errorf("restore: %v, %v", did, err)
	}
	if got, want := strings.Join(p.commands, "; "), "resolvconf -a lo.weir; resolvconf -d lo.weir"; got != want || p.read("etc/resolv.conf") != generated {
		t.Errorf("ran %s, want %s", got, want)
	}
	p.command = nil // one that takes it, and lists others before
	if _, err := New(p.o).Set(t.Context(), proxy); err == nil || !strings.Contains(err.Error(), "interface order") {
		t.Errorf("not first: got %v", err)
	}
}

func TestResolvedAsksTheProxyAloneForItsZones(t *testing.T) {
	p := newPlace(t, Auto)
	p.write("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
	p.write("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.2\n")
	if err := os.Symlink("../run/systemd/resolve/stub-resolv.conf", p.o.File); err != nil {
		t.Fatal(err)
	}
	h := New(p.o)
	p.set(h, Written)
	p.set(h, Same)
	want := mark + "\n[Resolve]\nDNS=169.254.53.53\nDomains=~corp.example ~weir.internal\n"
	if got := p.read("etc/systemd/resolved.conf.d/weir.conf"); got != want || h.Mode() != Resolved {
		t.Errorf("got %q, mode %s", got, h.Mode())
	}
	if got := texts(h.Upstreams(proxy.Servers)); got != "10.0.0.2" {
		t.Errorf("upstreams: got %s", got)
	}
	if did, err := h.Restore(t.Context()); !did || err != nil {
		t.Errorf("restore: %v, %v", did, err)
	}
	reload := "systemctl reload-or-restart systemd-resolved.service"
	if got := strings.Join(p.commands, "; "); got != reload+"; "+reload {
		t.Errorf("ran %s", got)
	}
	if _, err := os.Stat(filepath.Join(p.o.DropIns, dropIn)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the drop-in is still there: %v", err)
	}
	p.command = func(string, string, ...string) error { return errors.New("no such unit") }
	if _, err := h.Set(t.Context(), proxy); err == nil || !strings.Contains(err.Error(), "reload systemd-resolved: no such unit") {
		t.Errorf("a failing command: got %v", err)
	}
	p.command = nil
	p.set(h, Written)
	p.write("etc/systemd/resolved.conf.d/weir.conf", "[Resolve]\nDNS=192.0.2.1\n")
	if _, err := h.Set(t.Context(), proxy); err == nil || !strings.Contains(err.Error(), "did not write it") {
		t.Errorf("another's drop-in: got %v", err)
	}
}

func TestChangingTheModeTakesTheOldOneBack(t *testing.T) {
	p := newPlace(t, File)
	p.write("etc/resolv.conf", dhcp)
	p.set(New(p.o), Written)
	p.o.Mode = Resolved
	p.set(New(p.o), Written)
	if got := p.read("etc/resolv.conf"); got != dhcp {
		t.Errorf("got %q", got)
	}
	p.o.Mode = File
	p.set(New(p.o), Written)
	if _, err := os.Stat(filepath.Join(p.o.DropIns, dropIn)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the drop-in is still there: %v", err)
	}
}
