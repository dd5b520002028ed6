package edge

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/weirproject/weir/dataplane"
)

// setAnswerLinks awaits the answers of backends behind NAT where they will arrive:
// on the interfaces by which packets leave for the backends. The programs there
// send to the clients' interfaces, so they must not be in a mode that these could
// not have: a device without native XDP takes no frames from there.
func (e *Edge) setAnswerLinks(w *wanted, clients map[int]bool, kept, pinned map[linkPlace]bool, c *dataplane.Changes) error {
	mode := dataplane.AttachNative
	for at := range kept {
		if slices.Index(modes, at.mode) > slices.Index(modes, mode) {
			mode = at.mode
		}
	}
	sides, all := e.answerInterfaces(w)
	var faults []error
	for _, index := range sides {
		if clients[index] {
			continue
		}
		device, err := net.InterfaceByIndex(index)
		if err == nil {
			var at linkPlace
			if at, err = e.setLink(device.Name, linkPlace{index: index, answers: true}, mode, pinned, c); err == nil {
				kept[at] = true
				continue
			}
		}
		faults = append(faults, fmt.Errorf("attach to interface %d for answers: %w", index, err))
	}
	if !all {
		// A way that is not known for a while is no reason to let go.
		for place := range pinned {
			if place.answers && !clients[place.index] {
				kept[place] = true
			}
		}
	}
	return errors.Join(faults...)
}

// answerInterfaces lists by index where answers arrive, and tells whether these
// are all.
func (e *Edge) answerInterfaces(w *wanted) (sides []int, all bool) {
	all = true
	for _, s := range w.services {
		if s.cell.Deliver != deliverNAT {
			continue
		}
		for i := range s.backends {
			id := w.nodes[decodeAddress(s.backends[i].Node)]
			if id == 0 {
				all = false
				continue
			}
			sides = append(sides, int(e.cells.hops[id].Ifindex))
		}
	}
	slices.Sort(sides)
	return slices.Compact(sides), all
}
