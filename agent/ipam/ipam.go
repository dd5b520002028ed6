// Package ipam keeps which container of a node has which addresses, on disk: an
// agent that starts again gives none of them to somebody else. It hands out
// addresses of the node's subnets and touches no kernel. Package agent calls it.
package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/weirproject/weir/api"
)

// ErrFull is told of a subnet all of whose addresses are given.
var ErrFull = errors.New("no address is left")

// ErrTaken is told of an address or a published port that another has.
var ErrTaken = errors.New("it is taken")

// Book has the attachments of a node.
type Book struct {
	dir string

	mu    sync.Mutex // guards what follows
	all   map[string]api.Attachment
	taken map[netip.Addr]string // by whom
	// last is the address that was last given from a subnet: the next is sought
	// behind it, so that one is not used again at once.
	last map[netip.Prefix]netip.Addr
}

// Open reads the book in a folder, which is made with the first attachment.
// Files that cannot be read are told in the error, next to a book of the others.
func Open(dir string) (*Book, error) {
	b := &Book{dir: dir, all: map[string]api.Attachment{}, taken: map[netip.Addr]string{}, last: map[netip.Prefix]netip.Addr{}}
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return b, fmt.Errorf("read the attachments: %w", err)
	}
	var faults []error
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		var a api.Attachment
		if err == nil {
			err = json.Unmarshal(data, &a)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("read attachment %s: %w", f.Name(), err))
			continue
		}
		b.note(a)
	}
	return b, errors.Join(faults...)
}

func (b *Book) note(a api.Attachment) {
	b.all[a.ID] = a
	for _, address := range a.Addresses() {
		b.taken[address] = a.ID
	}
}

// Get finds an attachment.
func (b *Book) Get(id string) (api.Attachment, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, found := b.all[id]
	return a, found
}

// All lists the attachments, by id.
func (b *Book) All() []api.Attachment {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]api.Attachment, 0, len(b.all))
	for _, a := range b.all {
		all = append(all, a)
	}
	slices.SortFunc(all, func(x, y api.Attachment) int { return strings.Compare(x.ID, y.ID) })
	return all
}

// Pick gives an address of a subnet that nobody has: not the network's own, nor
// the gateway, nor the broadcast address. It is taken only by Put.
func (b *Book) Pick(subnet netip.Prefix, gateway netip.Addr) (netip.Addr, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	subnet = subnet.Masked()
	first := subnet.Addr().Next()
	a := first
	if last, given := b.last[subnet]; given {
		a = last.Next()
	}
	for start, wrapped := a, false; ; a = a.Next() {
		if !subnet.Contains(a) || a.Is4() && !subnet.Contains(a.Next()) {
			if wrapped {
				return netip.Addr{}, fmt.Errorf("subnet %s: %w", subnet, ErrFull)
			}
			a, wrapped = first, true
		}
		if _, given := b.taken[a]; !given && a != gateway {
			b.last[subnet] = a
			return a, nil
		}
		if wrapped && a.Next() == start {
			return netip.Addr{}, fmt.Errorf("subnet %s: %w", subnet, ErrFull)
		}
	}
}

// Put writes an attachment down. It tells ErrTaken of an address or a published
// port that another has.
func (b *Book) Put(a api.Attachment) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range a.Addresses() {
		if by, given := b.taken[address]; given && by != a.ID {
			return fmt.Errorf("address %s: %w by %s", address, ErrTaken, by)
		}
	}
	if err := b.portsFree(a); err != nil {
		return err
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := b.write(a.ID, data); err != nil {
		return fmt.Errorf("keep attachment %s: %w", a.ID, err)
	}
	b.forget(a.ID)
	b.note(a)
	return nil
}

// portsFree must be called with mu held.
func (b *Book) portsFree(a api.Attachment) error {
	for _, other := range b.all {
		for _, p := range a.Ports {
			if other.ID != a.ID && p.HostPort != 0 && slices.ContainsFunc(other.Ports, func(o api.TaskPort) bool {
				return o.HostPort == p.HostPort && protocolOf(o) == protocolOf(p)
			}) {
				return fmt.Errorf("host port %s/%d: %w by %s", protocolOf(p), p.HostPort, ErrTaken, other.ID)
			}
		}
	}
	return nil
}

func protocolOf(p api.TaskPort) api.Protocol {
	if p.Protocol == "" {
		return api.TCP
	}
	return p.Protocol
}

// write replaces the file at once: a crash leaves the old one or the new one.
func (b *Book) write(id string, data []byte) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(b.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), b.file(id))
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Remove forgets an attachment, if there is one.
func (b *Book) Remove(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, found := b.all[id]; !found {
		return nil
	}
	if err := os.Remove(b.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove attachment %s: %w", id, err)
	}
	b.forget(id)
	return nil
}

func (b *Book) forget(id string) {
	for _, address := range b.all[id].Addresses() {
		delete(b.taken, address)
	}
	delete(b.all, id)
}

func (b *Book) file(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(b.dir, hex.EncodeToString(sum[:16])+".json")
}
