package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// LinkPrefix starts the names of pinned links.
const LinkPrefix = "link-"

// Links are the links of one sink, by names of its own: each is pinned in Dir at
// LinkPrefix and its name. Not safe for concurrent use.
type Links struct {
	Dir string
	Log *slog.Logger

	held map[string]link.Link
}

// Hook is a place in the kernel where a program is to run.
type Hook struct {
	Program *ebpf.Program
	// At tells whether a link is attached there; one whose target is gone is
	// attached nowhere.
	At func(*link.Info) bool
	// Attach makes a link there that runs Program.
	Attach func() (link.Link, error)
}

// Count books a change of the object of a kind and name. It is a repair when this
// process has made the object already.
type Count func(repair bool, kind, name string)

// Set makes the hook run its program by the pinned link of the name. A link that
// is there, in this process or in its pin, is kept: the kernel swaps its program
// atomically. Another is made only where none is or where it is attached
// elsewhere.
func (l *Links) Set(name string, h Hook, count Count) error {
	made := l.held[name] != nil
	held, pinned := l.find(name)
	if held == nil || !isAt(held, h) {
		return l.replace(name, h, made, count)
	}
	if !Runs(held, h.Program) {
		if err := held.Update(h.Program); err != nil {
			return fmt.Errorf("replace program: %w", err)
		}
		count(made, "program", name)
		l.Log.Info("program replaced", "link", name)
	}
	if pinned {
		return nil
	}
	count(made, "pin", name)
	return l.pin(name)
}

// find gives the link that this process holds or else the one that is pinned,
// and whether it is pinned where it belongs.
func (l *Links) find(name string) (held link.Link, isPinned bool) {
	held = l.held[name]
	pinned, err := link.LoadPinnedLink(l.path(name), nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return held, false
	case err != nil:
		l.Log.Warn("pin is no link", "path", l.path(name), "error", err)
		return held, false
	case held != nil && !SameLink(held, pinned):
		// Somebody's, at our place: ours will replace its pin.
		pinned.Close()
		return held, false
	case held != nil:
		pinned.Close()
		return held, true
	}
	l.hold(name, pinned)
	return pinned, true
}

// replace attaches anew. The link before, if any, ends after the new one works
// and its pin is replaced, so that a process killed in between leaves one.
func (l *Links) replace(name string, h Hook, made bool, count Count) error {
	fresh, err := h.Attach()
	if err != nil {
		return err
	}
	before := l.held[name]
	l.hold(name, fresh)
	count(made, "link", name)
	l.Log.Info("program attached", "link", name)
	err = l.pin(name)
	if before != nil {
		_ = before.Detach() // not possible when its target is gone
		before.Close()
	}
	return err
}

func (l *Links) hold(name string, held link.Link) {
	if l.held == nil {
		l.held = map[string]link.Link{}
	}
	l.held[name] = held
}

func isAt(l link.Link, h Hook) bool {
	info, err := l.Info()
	return err == nil && h.At(info)
}

// pin puts the pin of the link that is held at its place.
func (l *Links) pin(name string) error {
	pinned, err := Link(l.held[name], l.path(name))
	if err != nil {
		return err
	}
	l.held[name] = pinned
	return nil
}

func (l *Links) path(name string) string { return filepath.Join(l.Dir, LinkPrefix+name) }

// Keep detaches and unpins every link in Dir whose name is not wanted, also those
// of earlier processes. It tells how many pins it removed.
func (l *Links) Keep(wanted func(name string) bool) (removed int, err error) {
	files, err := os.ReadDir(l.Dir)
	if err != nil {
		return 0, fmt.Errorf("read pin folder: %w", err)
	}
	for _, f := range files {
		name, ours := strings.CutPrefix(f.Name(), LinkPrefix)
		if !ours || wanted(name) {
			continue
		}
		if err := removeLink(l.path(name)); err != nil {
			return removed, err
		}
		removed++
	}
	for name, held := range l.held {
		if !wanted(name) {
			_ = held.Detach() // for one whose pin was gone
			held.Close()
			delete(l.held, name)
		}
	}
	return removed, nil
}

// Close lets go of the links. Those that are pinned stay attached.
func (l *Links) Close() error {
	var faults []error
	for _, held := range l.held {
		faults = append(faults, held.Close())
	}
	l.held = nil
	return errors.Join(faults...)
}
