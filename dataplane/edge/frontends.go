package edge

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// setFrontends makes exactly the wanted addresses lead to their services. An
// address counts as virtual only when its frontends are there, and only until
// they go: in between its clients would be refused.
func (e *Edge) setFrontends(w *wanted, c *dataplane.Changes) error {
	held, err := readHash[bpf.EdgeFrontendKey, bpf.EdgeEdgeFrontend](e.maps[bpf.EdgeMapEdgeFrontends])
	if err != nil {
		return fmt.Errorf("read frontends back: %w", err)
	}
	addresses, err := readHash[bpf.EdgeAddress, uint32](e.maps[bpf.EdgeMapEdgeAddresses])
	if err != nil {
		return fmt.Errorf("read addresses back: %w", err)
	}
	e.setFilter(w, true, c)
	failed := e.writeFrontends(w, held, c)
	if err := e.removeFrontends(w, held, addresses, c); err != nil {
		return err
	}
	if len(failed) > 0 {
		// The old ones have made room.
		for name, why := range e.writeFrontends(w, held, c) {
			w.leave(name, why)
		}
		if err := e.removeFrontends(w, held, addresses, c); err != nil {
			return err
		}
	}
	for a := range w.addresses() {
		if _, there := addresses[a]; !there {
			if err := e.maps[bpf.EdgeMapEdgeAddresses].Put(&a, uint32(1)); err != nil {
				return fmt.Errorf("write address %s: %w", decodeAddress(a), err)
			}
			e.count(c, e.made.addresses[a], "address", decodeAddress(a).String())
		}
		e.made.addresses[a] = true
	}
	e.setFilter(w, false, c)
	return nil
}

// setFilter lets the wanted addresses through the filter, and, unless it is to
// add alone, no others.
func (e *Edge) setFilter(w *wanted, add bool, c *dataplane.Changes) {
	want := make([]uint64, len(e.cells.filter))
	for a := range w.addresses() {
		bit := filterBit(a)
		want[bit/64] |= 1 << (bit % 64)
	}
	changed := false
	for i, word := range want {
		if add {
			word |= e.cells.filter[i]
		}
		if e.cells.filter[i] != word {
			atomic.StoreUint64(&e.cells.filter[i], word)
			changed = true
		}
	}
	if changed {
		e.count(c, slices.Equal(e.made.filter, want), "filter", "")
	}
	if !add {
		e.made.filter = want
	}
}

// filterBit is edge_filter_has in bpf/edge_pick.h.
func filterBit(a bpf.EdgeAddress) uint64 {
	x := uint64(a.WordBe[0]) | uint64(a.WordBe[1])<<32
	x ^= uint64(a.WordBe[2]) | uint64(a.WordBe[3])<<32
	return x * 0xd6e8feb86659fd93 >> 48
}

// writeFrontends adds and corrects. It tells which services failed, and why; held
// follows what it wrote.
func (e *Edge) writeFrontends(w *wanted, held map[bpf.EdgeFrontendKey]bpf.EdgeEdgeFrontend, c *dataplane.Changes) map[string]error {
	failed := map[string]error{}
	for key, name := range w.frontends {
		next := bpf.EdgeEdgeFrontend{Self: key, Service: e.entries[name].id}
		if held[key] == next {
			e.made.frontends[key] = next.Service
			continue
		}
		if err := e.maps[bpf.EdgeMapEdgeFrontends].Put(&key, &next); err != nil {
			failed[name] = fmt.Errorf("write frontend %s: %w", decodeFrontend(key), err)
			continue
		}
		e.count(c, e.made.frontends[key] == next.Service, "frontend", decodeFrontend(key).String())
		e.made.frontends[key] = next.Service
		held[key] = next
	}
	return failed
}

func (e *Edge) removeFrontends(w *wanted, held map[bpf.EdgeFrontendKey]bpf.EdgeEdgeFrontend, addresses map[bpf.EdgeAddress]uint32, c *dataplane.Changes) error {
	wanted := w.addresses()
	for a := range addresses {
		if wanted[a] {
			continue
		}
		if err := e.maps[bpf.EdgeMapEdgeAddresses].Delete(&a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove address %s: %w", decodeAddress(a), err)
		}
		delete(addresses, a)
		delete(e.made.addresses, a)
		c.Removed++
	}
	for key := range held {
		if _, wanted := w.frontends[key]; wanted {
			continue
		}
		if err := e.maps[bpf.EdgeMapEdgeFrontends].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove frontend %s: %w", decodeFrontend(key), err)
		}
		delete(held, key)
		delete(e.made.frontends, key)
		c.Removed++
	}
	return nil
}

// readHash reads a whole hash map.
func readHash[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	all := map[K]V{}
	// A batch must hold the fullest bucket, or the kernel says ENOSPC.
	for size := 1024; ; size *= 4 {
		keys, values := make([]K, size), make([]V, size)
		var cursor ebpf.MapBatchCursor
		for {
			n, err := m.BatchLookup(&cursor, keys, values, nil)
			for i := range n {
				all[keys[i]] = values[i]
			}
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				return all, nil
			}
			if errors.Is(err, unix.ENOSPC) && size < 1<<20 {
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
}
