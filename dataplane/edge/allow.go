package edge

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// readAllowed reads all allow lists back.
func (e *Edge) readAllowed(w *wanted) error {
	var key bpf.EdgeEdgeAllowKey
	var value uint32
	all := e.maps[bpf.EdgeMapEdgeAllowed].Iterate()
	for all.Next(&key, &value) {
		w.heldAllowed[key] = true
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read allow lists back: %w", err)
	}
	return nil
}

// writeAllowed adds what the service's list lacks, before the service asks for it.
func (e *Edge) writeAllowed(w *wanted, s *wantedService, id uint32, c *dataplane.Changes) error {
	for _, p := range s.allow {
		key := encodeAllowed(id, p)
		w.allowed[key] = true
		if !w.heldAllowed[key] {
			if err := e.maps[bpf.EdgeMapEdgeAllowed].Put(&key, uint32(1)); err != nil {
				return fmt.Errorf("write allowed network %s: %w", p, err)
			}
			w.heldAllowed[key] = true
			e.count(c, e.made.allowed[key], "allowed network", p.String())
		}
		e.made.allowed[key] = true
	}
	return nil
}

// removeAllowed removes what no list wants, after services have ceased to ask.
func (e *Edge) removeAllowed(w *wanted, c *dataplane.Changes) error {
	for key := range w.heldAllowed {
		if w.allowed[key] {
			continue
		}
		if err := e.maps[bpf.EdgeMapEdgeAllowed].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove allowed network: %w", err)
		}
		delete(e.made.allowed, key)
		c.Removed++
	}
	return nil
}
