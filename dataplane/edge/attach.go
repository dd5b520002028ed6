package edge

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// linkPrefix starts the names of our pinned links, which go on with mode and
// interface. It is the interface's index: bpffs takes no names with dots.
const linkPrefix = "link-"

// linkPlace is where one of our programs is attached.
type linkPlace struct {
	mode  dataplane.AttachMode
	index int
	// answers tells that the program awaits the answers of backends behind NAT, and
	// balances nothing.
	answers bool
}

// answersPrefix comes after linkPrefix where a link is for answers.
const answersPrefix = "answers-"

func (p linkPlace) pin() string {
	prefix := linkPrefix
	if p.answers {
		prefix += answersPrefix
	}
	return fmt.Sprintf("%s%s-%d", prefix, p.mode, p.index)
}

// placeOf reads the name of a pin.
func placeOf(pin string) (p linkPlace, ok bool) {
	rest, ok := strings.CutPrefix(pin, linkPrefix)
	if !ok {
		return p, false
	}
	rest, p.answers = strings.CutPrefix(rest, answersPrefix)
	mode, index, ok := strings.Cut(rest, "-")
	n, err := strconv.Atoi(index)
	p.mode, p.index = dataplane.AttachMode(mode), n
	return p, ok && err == nil && p.pin() == pin
}

// modes in the order in which they are tried. Generic XDP comes last: it gets
// frames after they were joined, which are too big for a tunnel, so that large
// uploads stall.
var modes = []dataplane.AttachMode{dataplane.AttachNative, dataplane.AttachTCX, dataplane.AttachGeneric}

// automatic are the modes for a device in the order in which they are tried. A
// veth takes our program in the driver, but lets it send to another veth only
// where that has a program or GRO, too; otherwise all packets are lost.
func automatic(device string) []dataplane.AttachMode {
	if driver(device) != "veth" {
		return modes
	}
	return append(slices.Clone(modes[1:]), modes[0])
}

// driver is the name of the device's driver, empty when it has none.
func driver(device string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, device)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// setLinks makes every wanted interface run our program, by a pinned link, and no
// other. What cannot be attached does not keep the others from it.
func (e *Edge) setLinks(interfaces map[string]dataplane.AttachMode, w *wanted, c *dataplane.Changes) error {
	pinned, err := e.pinnedLinks(c)
	if err != nil {
		return err
	}
	var faults []error
	kept, clients := map[linkPlace]bool{}, map[int]bool{}
	for _, name := range slices.Sorted(maps.Keys(interfaces)) {
		index, err := interfaceIndex(name)
		if err == nil {
			clients[index] = true
			var at linkPlace
			if at, err = e.setLink(name, linkPlace{index: index}, interfaces[name], pinned, c); err == nil {
				kept[at] = true
				continue
			}
		}
		faults = append(faults, fmt.Errorf("attach to %s: %w", name, err))
	}
	faults = append(faults, e.setAnswerLinks(w, clients, kept, pinned, c))
	for place := range pinned {
		if !kept[place] {
			e.removeLink(place)
			c.Removed++
		}
	}
	return errors.Join(faults...)
}

// pinnedLinks opens the links that are pinned, unless they are held already.
func (e *Edge) pinnedLinks(c *dataplane.Changes) (map[linkPlace]bool, error) {
	files, err := os.ReadDir(e.options.PinDir)
	if err != nil {
		return nil, fmt.Errorf("read pin folder: %w", err)
	}
	found := map[linkPlace]bool{}
	for _, f := range files {
		place, ok := placeOf(f.Name())
		if !ok {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(e.options.PinDir, f.Name()), nil)
		if err != nil {
			e.log.Warn("pin is no link", "path", f.Name(), "error", err)
			continue
		}
		if held := e.links[place]; held != nil {
			if pin.SameLink(held, l) {
				held.Close()
			} else {
				// Ours is not reachable any more: it ends here.
				_ = held.Detach()
				held.Close()
			}
		}
		e.links[place], found[place] = l, true
	}
	return found, e.repin(found, c)
}

// repin pins the links that we hold and whose pins are gone.
func (e *Edge) repin(found map[linkPlace]bool, c *dataplane.Changes) error {
	for place, l := range e.links {
		if found[place] {
			continue
		}
		if !attachedTo(l, place.index) {
			l.Close()
			delete(e.links, place)
			continue
		}
		again, err := pin.Link(l, filepath.Join(e.options.PinDir, place.pin()))
		if err != nil {
			return err
		}
		e.links[place], found[place] = again, true
		e.count(c, true, "pin", place.pin())
	}
	return nil
}

// setLink keeps a link that works in one of the modes that will do, else makes
// one, at the place, whose mode is left open.
func (e *Edge) setLink(name string, place linkPlace, mode dataplane.AttachMode, pinned map[linkPlace]bool, c *dataplane.Changes) (linkPlace, error) {
	tried := []dataplane.AttachMode{mode}
	switch at := slices.Index(modes, mode); {
	case mode == dataplane.AttachAuto || mode == "":
		tried = automatic(name)
	case at < 0:
		return linkPlace{}, fmt.Errorf("the mode %q is unknown", mode)
	case place.answers:
		tried = modes[at:]
	}
	index := place.index
	for _, place.mode = range tried {
		if l := e.links[place]; l != nil && attachedTo(l, index) {
			return place, e.upgrade(name, place, c)
		}
	}
	// An interface has room for one XDP program.
	for held := range e.links {
		if held.index == index {
			e.removeLink(held)
			delete(pinned, held)
		}
	}
	var faults []error
	for _, m := range tried {
		place.mode = m
		l, err := e.attach(place)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", m, err))
			continue
		}
		if e.links[place], err = pin.Link(l, filepath.Join(e.options.PinDir, place.pin())); err != nil {
			l.Close()
			delete(e.links, place)
			return place, err
		}
		e.count(c, e.made.attached[index], "link", name)
		e.made.attached[index] = true
		e.log.Info("program attached", "interface", name, "mode", m, "answers", place.answers, "others", errors.Join(faults...))
		return place, nil
	}
	return linkPlace{}, errors.Join(faults...)
}

func (e *Edge) program(at linkPlace) *ebpf.Program {
	switch {
	case at.answers && at.mode == dataplane.AttachTCX:
		return e.nat.Programs[bpf.EdgeNatProgWeirEdgeNatInTcx]
	case at.answers:
		return e.nat.Programs[bpf.EdgeNatProgWeirEdgeNatInXdp]
	case at.mode == dataplane.AttachTCX:
		return e.programs.Programs[bpf.EdgeProgWeirEdgeTcx]
	default:
		return e.programs.Programs[bpf.EdgeProgWeirEdgeXdp]
	}
}

func (e *Edge) attach(place linkPlace) (link.Link, error) {
	if place.mode == dataplane.AttachTCX {
		// At the head: the deliverer takes what we pass to this node itself.
		return link.AttachTCX(link.TCXOptions{
			Interface: place.index, Program: e.program(place), Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
	}
	flags := link.XDPDriverMode
	if place.mode == dataplane.AttachGeneric {
		flags = link.XDPGenericMode
	}
	return link.AttachXDP(link.XDPOptions{Interface: place.index, Program: e.program(place), Flags: flags})
}

// attachedTo tells whether the link still is at the interface: a detached one
// says 0.
func attachedTo(l link.Link, index int) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex) == index
	}
	if x := info.TCX(); x != nil {
		return int(x.Ifindex) == index
	}
	return false
}

// upgrade makes the link run this process's program, unless it runs the same code
// on the same maps. The kernel swaps them atomically.
func (e *Edge) upgrade(name string, place linkPlace, c *dataplane.Changes) error {
	if !pin.Runs(e.links[place], e.program(place)) {
		if err := e.links[place].Update(e.program(place)); err != nil {
			return fmt.Errorf("replace program: %w", err)
		}
		e.count(c, e.made.attached[place.index], "program", name)
		e.log.Info("program replaced", "interface", name, "mode", place.mode)
	}
	e.made.attached[place.index] = true
	return nil
}

// removeLink detaches and unpins. The program of an interface that is gone cannot
// be detached.
func (e *Edge) removeLink(place linkPlace) {
	if l := e.links[place]; l != nil {
		_ = l.Detach()
		l.Close()
		delete(e.links, place)
	}
	if err := os.Remove(filepath.Join(e.options.PinDir, place.pin())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("pinned link not removed", "pin", place.pin(), "error", err)
	}
}
