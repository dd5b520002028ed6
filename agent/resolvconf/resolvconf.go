// Package resolvconf makes a host ask the node's DNS proxy, when its owner wants
// that: by /etc/resolv.conf itself, by the resolvconf command, or by
// systemd-resolved. It keeps what was there and puts it back, tells the servers
// that the host would ask without us, and never writes over what somebody else
// wrote while the host is not managed. The agent calls it in every pass.
//
// While the proxy is down, the host's names go on: in resolv.conf the host's
// own servers follow the proxy's address, and systemd-resolved asks them beside
// the proxy. So nothing has to notice that the agent has died.
package resolvconf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mode is how the host is told.
type Mode string

// Modes.
const (
	Off        Mode = "off"        // not at all
	Auto       Mode = "auto"       // by what manages resolv.conf already, else as a file
	File       Mode = "file"       // resolv.conf is ours; what was there is kept
	Resolvconf Mode = "resolvconf" // Debian's or openresolv's command
	Resolved   Mode = "systemd-resolved"
)

// Modes are all there are, for messages and checks.
func Modes() []string {
	return []string{string(Off), string(Auto), string(File), string(Resolvconf), string(Resolved)}
}

// The guard against a fight with another program: after guardRewrites within
// guardTime the file is left alone for guardRest.
const (
	guardRewrites = 5
	guardTime     = time.Minute
	guardRest     = 5 * time.Minute
)

// commandTime bounds a command of the host.
const commandTime = 10 * time.Second

// Options of a Host. All but Mode and DataDir have defaults.
type Options struct {
	Mode Mode
	// DataDir keeps what was there: resolv.conf.original and what belongs to it.
	DataDir string
	// File is /etc/resolv.conf, DropIns is /etc/systemd/resolved.conf.d, and
	// Servers is where systemd-resolved lists the servers that it asks,
	// /run/systemd/resolve/resolv.conf.
	File, DropIns, Servers string
	// Run runs a command of the host; nil: as a process.
	Run func(ctx context.Context, stdin, name string, args ...string) error
	// Find gives a command's path, with links followed; "" when there is none.
	// nil: in PATH.
	Find func(name string) string
	// Now is the time; nil: the clock's.
	Now func() time.Time
}

// Want is what the host shall ask.
type Want struct {
	// Servers are the proxy's addresses, at port 53; the first is asked.
	Servers []netip.Addr
	// Zones are the names that only the proxy knows, without a last dot: the
	// cluster's domains and forward zones. systemd-resolved needs them.
	Zones []string
}

// Outcome of a Set.
type Outcome int

// Outcomes.
const (
	Same     Outcome = iota // nothing had to change
	Written                 // the host is told anew
	Repaired                // somebody else had taken it back
)

// Host is the resolver configuration of this machine. It is for one goroutine.
type Host struct {
	o Options
	// told is what was set last; nil before.
	told     *Want
	rewrites []time.Time // of others, in the last guardTime
	resting  time.Time   // until when the file is left alone
}

// New prepares a Host and touches nothing.
func New(o Options) *Host {
	set := func(s *string, standard string) {
		if *s == "" {
			*s = standard
		}
	}
	set(&o.File, "/etc/resolv.conf")
	set(&o.DropIns, "/etc/systemd/resolved.conf.d")
	set(&o.Servers, "/run/systemd/resolve/resolv.conf")
	if o.Run == nil {
		o.Run = run
	}
	if o.Find == nil {
		o.Find = find
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Host{o: o}
}

// Set makes the host ask the wanted servers first, or, with the mode Off, as it
// did without us. It is idempotent, and cheap when nothing has changed.
func (h *Host) Set(ctx context.Context, w Want) (Outcome, error) {
	mode, used := h.mode(), h.inUse()
	if used != "" && used != mode {
		if _, err := h.Restore(ctx); err != nil {
			return Same, err
		}
	}
	if mode == Off || len(w.Servers) == 0 {
		return Same, nil
	}
	if used != mode {
		if err := replace(h.kept("mode"), []byte(mode), 0o644, nil); err != nil {
			return Same, fmt.Errorf("note the mode of resolv.conf: %w", err)
		}
	}
	var outcome Outcome
	var err error
	switch mode {
	case Resolvconf:
		outcome, err = h.setResolvconf(ctx, w)
	case Resolved:
		outcome, err = h.setResolved(ctx, w)
	default:
		outcome, err = h.setFile(w)
	}
	if err == nil {
		h.told = &w
	}
	return outcome, err
}

// Restore takes back what was set, by this process or one before, and tells
// whether there was anything. What somebody else has written since stays.
func (h *Host) Restore(ctx context.Context) (bool, error) {
	h.told = nil
	var err error
	var did bool
	switch used := h.inUse(); used {
	case "":
		return false, nil
	case Resolvconf:
		did, err = true, h.o.Run(ctx, "", "resolvconf", "-d", record)
	case Resolved:
		did, err = h.dropResolved(ctx)
	default:
		did, err = h.restoreFile()
	}
	if err != nil {
		return did, fmt.Errorf("restore the host's resolv.conf: %w", err)
	}
	for _, name := range []string{"", "json", "mode"} {
		if err := os.Remove(h.kept(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return did, fmt.Errorf("restore the host's resolv.conf: %w", err)
		}
	}
	return did, nil
}

// Mode that is in force: what Auto stands for here, and Off while nothing is set.
func (h *Host) Mode() Mode {
	if used := h.inUse(); used != "" {
		return used
	}
	return Off
}

// mode resolves Auto. A choice that was made stays.
func (h *Host) mode() Mode {
	if h.o.Mode == "" {
		return Off
	}
	if h.o.Mode != Auto {
		return h.o.Mode
	}
	if used := h.inUse(); used != "" {
		return used
	}
	link, _ := os.Readlink(h.o.File)
	text, _ := os.ReadFile(h.o.File)
	switch command := h.o.Find("resolvconf"); {
	case strings.Contains(link, "systemd/resolve") || isStub(parse(text).servers):
		return Resolved
	case command != "" && filepath.Base(command) != "resolvectl" && (strings.Contains(link, "resolvconf") || strings.Contains(string(text), "resolvconf")):
		return Resolvconf
	}
	return File
}

// inUse is the mode that was set last; "" when the host is as it was.
func (h *Host) inUse() Mode {
	text, err := os.ReadFile(h.kept("mode"))
	if err != nil {
		return ""
	}
	return Mode(strings.TrimSpace(string(text)))
}

// kept is the path of a file that remembers how it was.
func (h *Host) kept(ending string) string {
	path := filepath.Join(h.o.DataDir, "resolv.conf.original")
	if ending == "" {
		return path
	}
	return path + "." + ending
}

// Upstreams are the servers that the host asks without us, in their order:
// never one of own.
func (h *Host) Upstreams(own []netip.Addr) []netip.Addr {
	c := h.original()
	if isStub(c.servers) {
		// systemd-resolved's own address: it may be told to ask us.
		if text, err := os.ReadFile(h.o.Servers); err == nil && len(parse(text).servers) > 0 {
			c.servers = parse(text).servers
		}
	}
	return slices.DeleteFunc(c.servers, func(a netip.Addr) bool {
		return slices.Contains(own, a) || h.told != nil && slices.Contains(h.told.Servers, a)
	})
}

// Search are the host's search domains.
func (h *Host) Search() []string { return h.original().search }

// rewritten notes that another program has written, and refuses to go on when
// that happens over and over.
func (h *Host) rewritten() error {
	now := h.o.Now()
	if now.Before(h.resting) {
		return fmt.Errorf("another program writes %s over and over: it is left alone until %s", h.o.File, h.resting.Format(time.TimeOnly))
	}
	h.rewrites = slices.DeleteFunc(h.rewrites, func(t time.Time) bool { return now.Sub(t) > guardTime })
	if h.rewrites = append(h.rewrites, now); len(h.rewrites) > guardRewrites {
		h.resting, h.rewrites = now.Add(guardRest), nil
		return fmt.Errorf("another program wrote %s %d times within %s: it is left alone until %s", h.o.File, guardRewrites+1, guardTime, h.resting.Format(time.TimeOnly))
	}
	return nil
}

func run(ctx context.Context, stdin, name string, args ...string) error {
	ctx, stop := context.WithTimeout(ctx, commandTime)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func find(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
