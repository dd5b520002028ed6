package answers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// checkSize is how many names one Set reads back, and how many elements of the
// map.
const checkSize = 4096

// check is how far the reading back has come.
type check struct {
	part   int
	cursor ebpf.MapBatchCursor
	found  int // elements of the map, so far
	keys   []uint64
	values []bpf.DnsAnswerDnsName
}

// Withdraw takes names away that are about to change or to go, before others see
// the change: until Publish the proxy alone answers for them. After an error the
// program is silent until the next Set.
func (a *Answerer) Withdraw(wires []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	if a.current == nil {
		return a.silence() // the next Set compares all
	}
	a.current, a.withdrawn = nil, true
	for _, wire := range wires {
		name, ok := words(wire)
		if !ok {
			continue
		}
		key := hashOf(a.seed, &name, len(wire))
		if err := a.maps[bpf.DnsAnswerMapDnsNames].Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			a.withdrawn = false
			return errors.Join(fmt.Errorf("withdraw a name: %w", err), a.silence())
		}
	}
	return nil
}

// Publish follows on Withdraw: changed are the names that have other or new
// addresses, next is all of them, and zones the SOA records, as in a Table. After
// an error the program is silent until the next Set.
func (a *Answerer) Publish(changed []Name, next Names, zones [][]byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || !a.withdrawn {
		return nil
	}
	a.withdrawn = false
	err := a.publish(changed, zones)
	if err != nil {
		return errors.Join(err, a.silence())
	}
	a.current = next
	return nil
}

func (a *Answerer) publish(changed []Name, zones [][]byte) error {
	var c dataplane.Changes
	if err := a.setZones(zones, &c); err != nil {
		return err
	}
	for _, n := range changed {
		if _, err := a.put(n); err != nil {
			return err
		}
	}
	return nil
}

// put writes one name, and tells whether it is in the map now.
func (a *Answerer) put(n Name) (bool, error) {
	key, value, ok := encode(a.seed, n)
	if !ok {
		return false, nil
	}
	a.value++
	value.First, value.Last = a.value, a.value
	err := a.maps[bpf.DnsAnswerMapDnsNames].Put(&key, &value)
	if errors.Is(err, unix.E2BIG) {
		a.left++
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write a name: %w", err)
	}
	return true, nil
}

// setNames makes the map hold the names: all of them are compared when they are
// others than before, else a part.
func (a *Answerer) setNames(ctx context.Context, names Names, c *dataplane.Changes) error {
	if a.current != nil && a.current == names {
		return a.checkNames(names, c)
	}
	if err := a.silence(); err != nil {
		return err
	}
	a.current, a.withdrawn, a.left, a.check = nil, false, 0, check{}
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		removed, ended, err := a.removeForeign(names)
		if err != nil {
			return err
		}
		c.Removed, done = c.Removed+removed, ended
	}
	write := a.compare
	if a.check.found == 0 {
		write = a.put // there is nothing to compare with
	}
	for n := range names.Part(0, 1) {
		wrote, err := write(n)
		if err != nil {
			return err
		}
		if wrote {
			c.Written++
		}
	}
	a.current = names
	return nil
}

// checkNames compares a part of the names with the map, and a part of the map
// with the names.
func (a *Answerer) checkNames(names Names, c *dataplane.Changes) error {
	parts := 1 + names.Len()/checkSize
	part := a.check.part % parts
	a.check.part++
	if part == 0 {
		a.left = 0
	}
	removed, _, err := a.removeForeign(names)
	if err != nil {
		return err
	}
	repaired := removed
	for n := range names.Part(part, parts) {
		wrote, err := a.compare(n)
		if err != nil {
			return err
		}
		if wrote {
			repaired++
		}
	}
	if repaired > 0 {
		c.Repaired += repaired
		a.log.Warn("names in the kernel repaired", "names", repaired)
	}
	return nil
}

// compare writes a name where the map has it not, or otherwise.
func (a *Answerer) compare(n Name) (wrote bool, err error) {
	key, want, ok := encode(a.seed, n)
	if !ok {
		return false, nil
	}
	var now bpf.DnsAnswerDnsName
	err = a.maps[bpf.DnsAnswerMapDnsNames].Lookup(&key, &now)
	if err == nil {
		a.value = max(a.value, now.First)
		if isSame(&now, &want) {
			return false, nil
		}
	} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("read a name: %w", err)
	}
	return a.put(n)
}

// isSame compares all but the numbers, which must be a pair.
func isSame(now, want *bpf.DnsAnswerDnsName) bool {
	plain := *now
	plain.First, plain.Last = 0, 0
	return now.First == now.Last && plain == *want
}

// removeForeign reads the next part of the map and removes what is none of the
// names. ended tells that it was the last.
func (a *Answerer) removeForeign(names Names) (removed int, ended bool, err error) {
	m := a.maps[bpf.DnsAnswerMapDnsNames]
	if a.check.keys == nil {
		a.check.keys, a.check.values = make([]uint64, checkSize), make([]bpf.DnsAnswerDnsName, checkSize)
	}
	n, err := m.BatchLookup(&a.check.cursor, a.check.keys, a.check.values, nil)
	if ended = errors.Is(err, ebpf.ErrKeyNotExist); ended {
		a.check.cursor = ebpf.MapBatchCursor{}
	} else if err != nil {
		return 0, false, fmt.Errorf("read the names: %w", err)
	}
	a.check.found += n
	for i := range n {
		key, value := a.check.keys[i], &a.check.values[i]
		a.value = max(a.value, value.First)
		if wanted, there := names.Find(wireOf(&value.Name)); there {
			if k, _, ok := encode(a.seed, wanted); ok && k == key {
				continue // compare looks at the rest
			}
		}
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return removed, ended, fmt.Errorf("remove name %s: %w", strconv.FormatUint(key, 16), err)
		}
		removed++
	}
	return removed, ended, nil
}

func nativeWord(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
