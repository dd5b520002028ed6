package deliver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// linkPrefix starts the names of our pinned links; the interface's index and
// the hook follow. Names of interfaces may have dots, which bpffs refuses.
const linkPrefix = "link-"

// hook is a place at an interface where one of our programs runs.
type hook struct {
	name, program string
	attach        ebpf.AttachType
}

// hooks in the order in which they are attached: answers get their address
// before the first packet is delivered.
var hooks = [...]hook{
	{"egress", bpf.DeliverProgWeirAnswer, ebpf.AttachTCXEgress},
	{"ingress", bpf.DeliverProgWeirDeliver, ebpf.AttachTCXIngress},
}

// place is a hook of one interface.
type place struct {
	index int
	hook  string
}

func (p place) pin() string { return fmt.Sprintf("%s%d-%s", linkPrefix, p.index, p.hook) }

// parsePin is the reverse of pin.
func parsePin(name string) (p place, ok bool) {
	rest, ok := strings.CutPrefix(name, linkPrefix)
	if !ok {
		return p, false
	}
	number, hook, ok := strings.Cut(rest, "-")
	index, err := strconv.Atoi(number)
	return place{index, hook}, ok && err == nil
}

// setLinks makes every hook of the interfaces run our program, by a pinned
// link, and no other interface.
func (d *Deliverer) setLinks(interfaces []netInterface, c *dataplane.Changes) error {
	wanted := map[place]bool{}
	for _, h := range hooks {
		for _, i := range interfaces {
			p := place{i.index, h.name}
			wanted[p] = true
			if err := d.setLink(p, h, c); err != nil {
				return fmt.Errorf("attach to %s of %s: %w", h.name, i.name, err)
			}
		}
	}
	return d.removeLinks(wanted, c)
}

func (d *Deliverer) setLink(p place, h hook, c *dataplane.Changes) error {
	path := filepath.Join(d.options.PinDir, p.pin())
	pinned, err := link.LoadPinnedLink(path, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("pin is no link", "path", path, "error", err)
	}
	held := d.links[p]
	made := held != nil
	there := pinned != nil && (held == nil || sameLink(held, pinned))
	if held == nil {
		held = pinned
	} else if pinned != nil {
		pinned.Close()
	}
	program := d.programs.Programs[h.program]
	if held == nil || !on(held, p.index, h.attach) {
		return d.replace(p, h, held, program, made, c)
	}
	d.links[p] = held
	if err := d.upgrade(p, held, program, made, c); err != nil {
		return err
	}
	if there {
		return nil
	}
	d.count(c, made, "pin", p.pin())
	return d.pinLink(p, held)
}

// replace attaches anew, where a link is missing, dead or elsewhere.
func (d *Deliverer) replace(p place, h hook, old link.Link, program *ebpf.Program, made bool, c *dataplane.Changes) error {
	fresh, err := link.AttachTCX(link.TCXOptions{Interface: p.index, Program: program, Attach: h.attach})
	if err != nil {
		return err
	}
	if old != nil {
		// Detached already when its interface is gone; its pin is replaced.
		_ = old.Detach()
		old.Close()
	}
	d.links[p] = fresh
	d.count(c, made, "link", p.pin())
	d.log.Info("program attached", "hook", h.name, "interface", p.index)
	return d.pinLink(p, fresh)
}

// pinLink puts the link's pin at its place, over whatever is there, at once.
func (d *Deliverer) pinLink(p place, l link.Link) error {
	path := filepath.Join(d.options.PinDir, p.pin())
	temporary := path + "-new"
	// The library believes in a pin that it made, also when the file is gone.
	if err := errors.Join(l.Unpin(), removeFile(temporary)); err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	if err := l.Pin(temporary); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	renamed, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open pin: %w", err)
	}
	l.Close()
	d.links[p] = renamed
	return nil
}

// upgrade makes the link run this process's program, unless it runs the same
// code on the same maps. The kernel swaps them atomically.
func (d *Deliverer) upgrade(p place, l link.Link, program *ebpf.Program, made bool, c *dataplane.Changes) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	if running, err := ebpf.NewProgramFromID(info.Program); err == nil {
		defer running.Close()
		if sameProgram(running, program) {
			return nil
		}
	}
	if err := l.Update(program); err != nil {
		return fmt.Errorf("replace program: %w", err)
	}
	d.count(c, made, "program", p.pin())
	d.log.Info("program replaced", "hook", p.hook, "interface", p.index)
	return nil
}

// removeLinks detaches from interfaces that are no longer wanted, also those of
// an earlier process.
func (d *Deliverer) removeLinks(wanted map[place]bool, c *dataplane.Changes) error {
	entries, err := os.ReadDir(d.options.PinDir)
	if err != nil {
		return fmt.Errorf("read pin folder: %w", err)
	}
	for _, e := range entries {
		if p, ours := parsePin(e.Name()); ours && !wanted[p] {
			if err := removeLink(filepath.Join(d.options.PinDir, e.Name())); err != nil {
				return err
			}
			c.Removed++
		}
	}
	for p, l := range d.links {
		if !wanted[p] {
			_ = l.Detach()
			l.Close()
			delete(d.links, p)
		}
	}
	return nil
}

func sameProgram(a, b *ebpf.Program) bool {
	x, err1 := a.Info()
	y, err2 := b.Info()
	if err1 != nil || err2 != nil {
		return false
	}
	mapsX, _ := x.MapIDs()
	mapsY, _ := y.MapIDs()
	slices.Sort(mapsX)
	slices.Sort(mapsY)
	return x.Tag == y.Tag && slices.Equal(mapsX, mapsY)
}

// on tells whether the link is attached to the hook of the interface. A link
// whose interface is gone has index 0.
func on(l link.Link, index int, attach ebpf.AttachType) bool {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return false
	}
	return info.TCX().Ifindex == uint32(index) && uint32(info.TCX().AttachType) == uint32(attach)
}

func sameLink(a, b link.Link) bool {
	x, err1 := a.Info()
	y, err2 := b.Info()
	return err1 == nil && err2 == nil && x.ID == y.ID
}
