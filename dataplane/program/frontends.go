package program

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// setFrontends makes exactly the wanted addresses lead to their services. An
// address counts as virtual only when its frontends are there, and only until
// they go: in between its clients would be refused.
func (b *Balancer) setFrontends(w *wanted, c *dataplane.Changes) error {
	held, err := readHash[bpf.BalanceFrontendKey, bpf.BalanceFrontend](b.maps[bpf.BalanceMapFrontends])
	if err != nil {
		return fmt.Errorf("read frontends back: %w", err)
	}
	literals, err := readHash[bpf.BalanceAddress, uint32](b.maps[bpf.BalanceMapAddresses])
	if err != nil {
		return fmt.Errorf("read addresses back: %w", err)
	}
	full := b.writeFrontends(w, held, c)
	if err := b.removeFrontends(w, held, literals, c); err != nil {
		return err
	}
	if len(full) > 0 {
		// The old ones have made room.
		for name, why := range b.writeFrontends(w, held, c) {
			w.leave(name, why)
		}
		if err := b.removeFrontends(w, held, literals, c); err != nil {
			return err
		}
	}
	return b.writeAddresses(w, literals, c)
}

// writeFrontends adds and corrects. It tells which services failed, and why;
// held follows what it wrote.
func (b *Balancer) writeFrontends(w *wanted, held map[bpf.BalanceFrontendKey]bpf.BalanceFrontend, c *dataplane.Changes) map[string]error {
	failed := map[string]error{}
	for key, name := range w.frontends {
		next := bpf.BalanceFrontend{Self: key, Service: b.entries[name].id}
		if held[key] == next {
			b.made.frontends[key] = next.Service
			continue
		}
		if err := b.maps[bpf.BalanceMapFrontends].Put(&key, &next); err != nil {
			failed[name] = fmt.Errorf("write frontend %s: %w", decodeFrontend(key), err)
			continue
		}
		b.count(c, b.made.frontends[key] == next.Service, "frontend", decodeFrontend(key).String())
		b.made.frontends[key] = next.Service
		held[key] = next
	}
	return failed
}

func (b *Balancer) removeFrontends(w *wanted, held map[bpf.BalanceFrontendKey]bpf.BalanceFrontend, literals map[bpf.BalanceAddress]uint32, c *dataplane.Changes) error {
	wanted := w.addresses()
	for a := range literals {
		if wanted[a] {
			continue
		}
		if err := b.maps[bpf.BalanceMapAddresses].Delete(&a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove address %s: %w", decodeAddress(a), err)
		}
		delete(literals, a)
		delete(b.made.addresses, a)
		c.Removed++
	}
	for key := range held {
		if _, wanted := w.frontends[key]; wanted {
			continue
		}
		if err := b.maps[bpf.BalanceMapFrontends].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove frontend %s: %w", decodeFrontend(key), err)
		}
		delete(held, key)
		delete(b.made.frontends, key)
		c.Removed++
	}
	return nil
}

func (b *Balancer) writeAddresses(w *wanted, literals map[bpf.BalanceAddress]uint32, c *dataplane.Changes) error {
	wanted := w.addresses()
	if len(wanted) > 0 {
		w.ranges.Literals = 1
	}
	for a := range wanted {
		if _, there := literals[a]; !there {
			if err := b.maps[bpf.BalanceMapAddresses].Put(&a, uint32(1)); err != nil {
				return fmt.Errorf("write address %s: %w", decodeAddress(a), err)
			}
			b.count(c, b.made.addresses[a], "address", decodeAddress(a).String())
		}
		b.made.addresses[a] = true
	}
	return b.writeRanges(&w.ranges, c)
}

func (b *Balancer) writeRanges(want *bpf.BalanceRanges, c *dataplane.Changes) error {
	cell := &b.cells.ranges[0]
	if *cell != *want {
		repair := b.made.ranges != nil && *b.made.ranges == *want
		// An entry that changes matches nothing meanwhile: an address masked
		// to nothing is not all ones.
		for i := range want.Entry {
			to, from := &cell.Entry[i], &want.Entry[i]
			if *to == *from {
				continue
			}
			for word := range to.Mask.WordBe {
				atomic.StoreUint32(&to.Mask.WordBe[word], 0)
				atomic.StoreUint32(&to.Net.WordBe[word], ^uint32(0))
			}
			for word := range to.Mask.WordBe {
				atomic.StoreUint32(&to.Mask.WordBe[word], from.Mask.WordBe[word])
			}
			for word := range to.Mask.WordBe {
				atomic.StoreUint32(&to.Net.WordBe[word], from.Net.WordBe[word])
			}
		}
		atomic.StoreUint32(&cell.Count, want.Count)
		atomic.StoreUint32(&cell.Literals, want.Literals)
		b.count(c, repair, "ranges", "")
	}
	made := *want
	b.made.ranges = &made
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
