package program

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// need is what the table of the pass takes, with room for changes.
func (p *pass) need() Sizes {
	s := Sizes{Services: uint32(len(p.table.Services)) + 1, Backends: 1}
	for _, service := range p.table.Services {
		s.Frontends += uint32(len(service.Frontends))
		s.Backends += uint32(len(service.Backends))
		s.Slots += uint32(len(service.Slots))
	}
	s.Services += s.Services / 8
	s.Frontends += s.Frontends / 8
	s.Backends += s.Backends / 8
	s.Slots += s.Slots / 4
	return s
}

// grow replaces the maps that are smaller than asked for, by twice their size
// or what the table needs, within the limits. what names the full table for the
// error. Traffic goes on: the new maps hold the same as the old ones before any
// program uses them, and nothing changes before all programs do. A process
// killed in between leaves maps of both sizes with the same content.
func (b *Balancer) grow(p *pass, what string, atLeast Sizes) error {
	now := b.sizes()
	next := p.need().max(atLeast).max(now)
	next = next.growth(now).min(b.options.Limits)
	if !next.covers(atLeast) {
		return fmt.Errorf("the table of %s is full: it holds %d and may hold %d", what, atLeast.only(now), atLeast.only(b.options.Limits))
	}
	if err := b.replaceMaps(next); err != nil {
		return fmt.Errorf("make the table of %s larger: %w", what, err)
	}
	b.log.Info("maps replaced by larger ones", "full", what, "services", next.Services, "frontends", next.Frontends,
		"backends", next.Backends, "slots", next.Slots)
	return nil
}

func (b *Balancer) sizes() Sizes {
	return Sizes{
		Services:  b.cells.serviceLimit(b.maps),
		Frontends: min(b.maps[bpf.BalanceMapFrontends].MaxEntries(), b.maps[bpf.BalanceMapAddresses].MaxEntries()),
		Backends:  uint32(len(b.cells.backends)),
		Slots:     uint32(len(b.cells.slots)),
	}
}

// replaceMaps moves everything to maps of the sizes.
func (b *Balancer) replaceMaps(s Sizes) error {
	spec, err := bpf.LoadBalance()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	s.apply(spec)
	fresh, err := b.makeLarger(spec)
	next := objects{maps: maps.Clone(b.maps)}
	maps.Copy(next.maps, fresh)
	if err == nil {
		err = next.load(spec)
	}
	if err == nil {
		err = b.copyMaps(fresh, &next.cells)
	}
	if err != nil {
		next.unload()
		for _, m := range fresh {
			m.Close()
		}
		return err
	}
	counted := b.copied(fresh, &next.cells)
	old := b.objects
	b.objects = next
	b.ids.Grow(b.cells.serviceLimit(b.maps))
	b.backends.Grow(uint32(len(b.cells.backends)))
	b.slots.Grow(uint32(len(b.cells.slots)))
	b.reset.close()
	b.reset.init(b.maps, b.log)
	return b.switchOver(old, fresh, counted)
}

// makeLarger makes those maps whose spec has more elements than the ones before,
// and gives the specs of the others the sizes that they have. It returns what it
// has made also when it fails.
func (b *Balancer) makeLarger(spec *ebpf.CollectionSpec) (fresh map[string]*ebpf.Map, err error) {
	fresh = map[string]*ebpf.Map{}
	for name, m := range b.maps {
		if spec.Maps[name].MaxEntries <= m.MaxEntries() {
			spec.Maps[name].MaxEntries = m.MaxEntries()
			continue
		}
		larger, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fresh, fmt.Errorf("make map %s: %w", name, err)
		}
		fresh[name] = larger
	}
	return fresh, nil
}

// switchOver pins the fresh maps, makes the hooks run the new programs and lets go
// of the old ones.
func (b *Balancer) switchOver(old objects, fresh map[string]*ebpf.Map, counted map[uint32]bpf.BalanceBackend) error {
	var err error
	if b.pinned {
		var c dataplane.Changes
		if err = b.pinMaps(&c); err == nil {
			err = b.setLinks(&c)
		}
		if err == nil {
			room.Grace()
			b.addCounters(old.cells.backends, counted)
		}
	}
	for name := range fresh {
		old.maps[name].Close()
	}
	return errors.Join(err, old.unload())
}

// copyMaps fills the fresh maps with what the ones before hold.
func (b *Balancer) copyMaps(fresh map[string]*ebpf.Map, next *cells) error {
	for name := range fresh {
		switch name {
		case bpf.BalanceMapServices:
			copyCells(next.services, b.cells.services)
		case bpf.BalanceMapNames:
			copyCells(next.names, b.cells.names)
		case bpf.BalanceMapBackends:
			copyCells(next.backends, b.cells.backends)
		case bpf.BalanceMapSlots:
			copyCells(next.slots, b.cells.slots)
		case bpf.BalanceMapFrontends:
			if err := copyHash[bpf.BalanceFrontendKey, bpf.BalanceFrontend](fresh[name], b.maps[name]); err != nil {
				return err
			}
		case bpf.BalanceMapAddresses:
			if err := copyHash[bpf.BalanceAddress, uint32](fresh[name], b.maps[name]); err != nil {
				return err
			}
		case bpf.BalanceMapServiceCounts:
			for _, e := range b.entries {
				perCPU, err := counter[bpf.BalanceServiceCount](b.maps[name], e.id)
				if err == nil {
					err = fresh[name].Put(e.id, perCPU)
				}
				if err != nil {
					return fmt.Errorf("copy the counters of %s: %w", e.name, err)
				}
			}
		}
	}
	return nil
}

// copyCells copies memory that programs may write to.
func copyCells[T any](to, from []T) {
	var cell T
	words := len(from) * int(unsafe.Sizeof(cell)) / 4
	target, source := unsafe.Slice((*uint32)(unsafe.Pointer(&to[0])), words), unsafe.Slice((*uint32)(unsafe.Pointer(&from[0])), words)
	for i := range source {
		target[i] = atomic.LoadUint32(&source[i])
	}
}

func copyHash[K comparable, V any](to, from *ebpf.Map) error {
	all, err := bulk.Hash[K, V](from)
	if err != nil {
		return fmt.Errorf("copy a map: %w", err)
	}
	keys := slices.Collect(maps.Keys(all))
	values := make([]V, len(keys))
	for i, key := range keys {
		values[i] = all[key]
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := to.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("copy a map: %w", err)
	}
	return nil
}

// copied are the counters that fresh cells of backends start with.
func (b *Balancer) copied(fresh map[string]*ebpf.Map, next *cells) map[uint32]bpf.BalanceBackend {
	all := map[uint32]bpf.BalanceBackend{}
	if fresh[bpf.BalanceMapBackends] == nil {
		return all
	}
	for _, e := range b.entries {
		for _, h := range e.backends {
			all[h.id] = next.backends[h.id]
		}
	}
	return all
}

// addCounters adds what the old programs have counted since the copy.
func (b *Balancer) addCounters(old []bpf.BalanceBackend, counted map[uint32]bpf.BalanceBackend) {
	for id, before := range counted {
		from, to := &old[id], &b.cells.backends[id]
		atomic.AddUint32(&to.Repeats, atomic.LoadUint32(&from.Repeats)-before.Repeats)
		atomic.AddUint64(&to.Opened, atomic.LoadUint64(&from.Opened)-before.Opened)
		atomic.AddUint64(&to.Closed, atomic.LoadUint64(&from.Closed)-before.Closed)
		atomic.AddUint64(&to.Failures, atomic.LoadUint64(&from.Failures)-before.Failures)
	}
}
