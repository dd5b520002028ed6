package program

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
)

// conflict tells which service has one of the frontends already. Services that
// are set anew in this pass may let go of theirs.
func (b *Balancer) conflict(p *pass, e *entry, frontends []bpf.BalanceFrontendKey) error {
	for _, key := range frontends {
		owner := p.claimed[key]
		if owner == nil {
			owner = b.owners[key]
			if owner == nil {
				p.fresh++
			}
			if p.touched[owner] {
				continue
			}
		}
		if owner != nil && owner != e {
			return fmt.Errorf("frontend %s is %s's", decodeFrontend(key), owner.name)
		}
	}
	if need := uint32(len(b.owners) + p.fresh); need > b.maps[bpf.BalanceMapFrontends].MaxEntries() {
		return b.grow(p, "frontends", Sizes{Frontends: need})
	}
	return nil
}

// claim makes the frontends the entry's; what it had before is released.
func (p *pass) claim(e *entry, frontends []bpf.BalanceFrontendKey) {
	p.released = append(p.released, e.frontends...)
	e.frontends = frontends
	for _, key := range frontends {
		p.claimed[key] = e
	}
}

// setFrontends makes exactly the wanted addresses lead to their services. An
// address counts as virtual only when its frontends are there, and only until
// they go: in between its clients would be refused.
func (b *Balancer) setFrontends(p *pass, c *dataplane.Changes) error {
	var held map[bpf.BalanceFrontendKey]bpf.BalanceFrontend
	if p.verify {
		var err error
		if held, err = b.verifyFrontends(p, c); err != nil {
			return err
		}
	}
	for key, e := range p.claimed {
		if err := b.writeFrontend(key, e, held, c); err != nil {
			return err
		}
	}
	gone := b.release(p)
	if err := b.removeAddresses(p, gone, c); err != nil {
		return err
	}
	for _, key := range gone {
		if err := b.removeFrontend(key, c); err != nil {
			return err
		}
	}
	return b.writeAddresses(p, c)
}

// verifyFrontends reads back what the kernel has and removes what nobody here
// has put there or wants.
func (b *Balancer) verifyFrontends(p *pass, c *dataplane.Changes) (map[bpf.BalanceFrontendKey]bpf.BalanceFrontend, error) {
	held, err := bulk.Hash[bpf.BalanceFrontendKey, bpf.BalanceFrontend](b.maps[bpf.BalanceMapFrontends])
	if err != nil {
		return nil, fmt.Errorf("read frontends back: %w", err)
	}
	for key := range held {
		if p.claimed[key] != nil || b.owners[key] != nil {
			continue
		}
		if err := b.removeFrontend(key, c); err != nil {
			return nil, err
		}
	}
	return held, nil
}

func (b *Balancer) removeFrontend(key bpf.BalanceFrontendKey, c *dataplane.Changes) error {
	if err := b.maps[bpf.BalanceMapFrontends].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove frontend %s: %w", decodeFrontend(key), err)
	}
	delete(b.made.frontends, key)
	c.Removed++
	return nil
}

// writeFrontend writes what held does not have; without held, what this
// process has not written.
func (b *Balancer) writeFrontend(key bpf.BalanceFrontendKey, e *entry, held map[bpf.BalanceFrontendKey]bpf.BalanceFrontend, c *dataplane.Changes) error {
	next := bpf.BalanceFrontend{Self: key, Service: e.id}
	id, made := b.made.frontends[key]
	made = made && id == e.id
	there := made
	if held != nil {
		there = held[key] == next
	}
	if !there {
		if err := b.maps[bpf.BalanceMapFrontends].Put(&key, &next); err != nil {
			return fmt.Errorf("write frontend %s: %w", decodeFrontend(key), err)
		}
		b.count(c, made, "frontend", decodeFrontend(key).String())
	}
	if b.owners[key] == nil {
		b.shared[key.Addr]++
	}
	b.owners[key], b.made.frontends[key] = e, e.id
	return nil
}

// release forgets the owners of the frontends that nobody wants any more, and
// returns these.
func (b *Balancer) release(p *pass) (gone []bpf.BalanceFrontendKey) {
	for _, e := range p.gone {
		p.released = append(p.released, e.frontends...)
	}
	for _, key := range p.released {
		if p.claimed[key] != nil || b.owners[key] == nil {
			continue
		}
		delete(b.owners, key)
		if b.shared[key.Addr]--; b.shared[key.Addr] == 0 {
			delete(b.shared, key.Addr)
		}
		gone = append(gone, key)
	}
	return gone
}

// removeAddresses removes the literal addresses that have no frontend left.
func (b *Balancer) removeAddresses(p *pass, gone []bpf.BalanceFrontendKey, c *dataplane.Changes) error {
	candidates := map[bpf.BalanceAddress]bool{}
	for _, key := range gone {
		if b.made.addresses[key.Addr] {
			candidates[key.Addr] = true
		}
	}
	if p.verify {
		literals, err := bulk.Hash[bpf.BalanceAddress, uint32](b.maps[bpf.BalanceMapAddresses])
		if err != nil {
			return fmt.Errorf("read addresses back: %w", err)
		}
		p.literals = literals
		for a := range literals {
			candidates[a] = true
		}
	}
	for a := range candidates {
		if b.shared[a] > 0 && p.isLiteral(a) {
			continue
		}
		if err := b.maps[bpf.BalanceMapAddresses].Delete(&a); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove address %s: %w", decodeAddress(a), err)
		}
		delete(b.made.addresses, a)
		c.Removed++
	}
	return nil
}

// writeAddresses adds the literal addresses of the frontends, and then the
// ranges.
func (b *Balancer) writeAddresses(p *pass, c *dataplane.Changes) error {
	for key := range p.claimed {
		a := key.Addr
		if !p.isLiteral(a) {
			continue
		}
		made := b.made.addresses[a]
		there := made
		if p.verify {
			_, there = p.literals[a]
		}
		if !there {
			if err := b.maps[bpf.BalanceMapAddresses].Put(&a, uint32(1)); err != nil {
				return fmt.Errorf("write address %s: %w", decodeAddress(a), err)
			}
			b.count(c, made, "address", decodeAddress(a).String())
			if p.verify {
				p.literals[a] = 1
			}
		}
		b.made.addresses[a] = true
	}
	if len(b.made.addresses) > 0 {
		p.ranges.Literals = 1
	}
	if p.verify || p.ranges.Literals != b.made.ranges.Literals {
		b.writeRanges(&p.ranges, c)
	}
	return nil
}

// writeRanges says which addresses are virtual.
func (b *Balancer) writeRanges(want *bpf.BalanceRanges, c *dataplane.Changes) {
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
}
