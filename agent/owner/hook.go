package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// The words of a virtual address's state, in its file and in WEIR_STATE.
const (
	StateUp   = "up"   // this node serves it: a route to it may be announced
	StateDown = "down" // it does not
)

// Files of a Hook's folder, besides one "<address>.state" for each address.
const (
	HookFile  = "vips.json"
	BirdFile4 = "bird4.conf" // routes for a "protocol static" of bird
	BirdFile6 = "bird6.conf"
)

// Served is what this node does for one virtual address.
type Served struct {
	VIP netip.Addr `json:"vip"`
	// Up: the packet program holds its services, and at least one has a way to
	// a backend.
	Up bool `json:"up"`
	// Owner: this node announces it on its segment. Routing daemons need not
	// care: any edge node takes any packet.
	Owner bool `json:"owner"`
	// Reason says why it is down; empty when up.
	Reason string `json:"reason,omitempty"`
}

// HookOptions configure a Hook.
type HookOptions struct {
	// Dir is the folder for the files; it is made when missing and must not be
	// used for anything else.
	Dir string
	// Command is run with its arguments, one at a time, for each address whose
	// state has changed, and for all after a start. WEIR_VIP and WEIR_STATE say
	// which and to what. Empty: none is run.
	Command []string
	// Timeout ends a command; 10 s when zero.
	Timeout time.Duration
	// Retry is how long after a failed command it is run again; 5 s when zero.
	Retry time.Duration
	// Log may be nil.
	Log *slog.Logger
}

// Hook tells routing daemons which virtual addresses this node serves.
type Hook struct {
	o    HookOptions
	wake chan struct{}

	mu      sync.Mutex // guards what follows; setting guards Set against Set
	wanted  map[netip.Addr]string
	leaving map[netip.Addr]bool // served no more; told as down and then forgotten

	setting sync.Mutex
}

// NewHook makes the folder. It tells nothing before Set.
func NewHook(o HookOptions) (*Hook, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("make hook: folder %q is not an absolute path", o.Dir)
	}
	if o.Timeout < 0 || o.Retry < 0 {
		return nil, fmt.Errorf("make hook: timeout %s or retry %s is negative", o.Timeout, o.Retry)
	}
	o.Timeout, o.Retry = cmp.Or(o.Timeout, 10*time.Second), cmp.Or(o.Retry, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make hook: %w", err)
	}
	return &Hook{o: o, wake: make(chan struct{}, 1), wanted: map[netip.Addr]string{}, leaving: map[netip.Addr]bool{}}, nil
}

// Set writes the files, each in one step and only where it differs, and has
// Run run the command where a state has changed. An address that was told
// before, also by an earlier process, and is not among them any more goes down,
// and once that is told its file goes, too.
func (h *Hook) Set(served []Served) error {
	h.setting.Lock()
	defer h.setting.Unlock()
	served = slices.SortedFunc(slices.Values(served), func(a, b Served) int { return a.VIP.Compare(b.VIP) })
	states := make(map[netip.Addr]string, len(served))
	for _, s := range served {
		states[s.VIP] = word(s.Up)
	}
	gone, err := h.told(states)
	if err != nil {
		return fmt.Errorf("tell which addresses are served: %w", err)
	}
	h.mu.Lock()
	for _, a := range gone {
		h.wanted[a], h.leaving[a] = StateDown, true
	}
	for a, state := range states {
		h.wanted[a] = state
		delete(h.leaving, a)
	}
	h.mu.Unlock()
	err = h.write(served, states, gone)
	select { // after the files, which the command may read
	case h.wake <- struct{}{}:
	default:
	}
	if err != nil {
		return fmt.Errorf("tell which addresses are served: %w", err)
	}
	return nil
}

func word(up bool) string {
	if up {
		return StateUp
	}
	return StateDown
}

// Run runs the command until ctx ends. States that change while a command runs
// are told by their last value only.
func (h *Hook) Run(ctx context.Context) error {
	done := map[netip.Addr]string{} // what the command has been told with success
	for {
		retry := false
		for _, a := range h.changed(done) {
			state := h.stateOf(a)
			if err := h.command(ctx, a, state); ctx.Err() != nil {
				return nil
			} else if err != nil {
				h.o.Log.Warn("hook command failed", "vip", a, "state", state, "error", err)
				retry = true
				continue
			}
			done[a] = state
			h.forget(a, done)
		}
		var again <-chan time.Time
		if retry {
			again = time.After(h.o.Retry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-again:
		}
	}
}

// forget removes the file of an address that is served no more and has been
// told as down. Until then the file stays, so that a process which starts in
// between tells it.
func (h *Hook) forget(a netip.Addr, done map[netip.Addr]string) {
	h.setting.Lock()
	defer h.setting.Unlock()
	h.mu.Lock()
	leaves := h.leaving[a]
	if leaves {
		delete(h.leaving, a)
		delete(h.wanted, a)
		delete(done, a)
	}
	h.mu.Unlock()
	if !leaves {
		return
	}
	if err := os.Remove(h.stateFile(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.o.Log.Warn("state file not removed", "vip", a, "error", err)
	}
}

func (h *Hook) changed(done map[netip.Addr]string) (list []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a, state := range h.wanted {
		if done[a] != state {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

func (h *Hook) stateOf(a netip.Addr) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wanted[a]
}

// command runs the command for one address.
func (h *Hook) command(ctx context.Context, a netip.Addr, state string) error {
	if len(h.o.Command) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.o.Command[0], h.o.Command[1:]...)
	cmd.Env = append(os.Environ(), "WEIR_VIP="+a.String(), "WEIR_STATE="+state)
	cmd.WaitDelay = time.Second // for children that keep its output open
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", h.o.Command[0], err, strings.TrimSpace(string(out[:min(len(out), 500)])))
	}
	return nil
}
