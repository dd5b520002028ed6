// Package answers is the kernel's part of the DNS proxy. It loads the program of
// bpf/dns_answer.c, attaches it to the host's side of the containers' interfaces,
// and keeps its maps equal to a Table: then a question for the addresses of a
// cluster's name is answered before any socket sees it. Everything else goes on
// to the proxy.
//
// It decides nothing about names; dnsproxy has made the answers. The program
// stops by itself when Beat is not called any more. The agent calls it.
package answers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// Limits of the program. What is beyond them is answered by the proxy itself.
const (
	MaxListen    = len(bpf.DnsAnswerDnsConfig{}.Listen)
	MaxClients   = len(bpf.DnsAnswerDnsConfig{}.Clients)
	MaxName      = len(bpf.DnsAnswerDnsName{}.Name) * 8 // bytes on the wire
	MaxAddresses = len(bpf.DnsAnswerDnsName{}.V4Be)     // of one type at a name
	MaxSOA       = len(bpf.DnsAnswerDnsZone{}.Soa) * 8  // bytes
)

// Name is a name of the cluster with its addresses.
type Name struct {
	Wire    string // as in messages, in lower case, with the last zero
	A, AAAA Set
	// Zone is the index of the name's zone in Table.Zones, and ApexLength how many
	// bytes of Wire are that zone's name.
	Zone, ApexLength int
}

// Set is the addresses of one type that a name has. Without any, the answer says
// so.
type Set struct {
	TTL uint32 // seconds
	// Addresses of 4 or 16 bytes each, in the order of the proxy's own answer.
	Addresses []byte
	// Elsewhere: the answer is more than addresses, so the proxy gives it.
	Elsewhere bool
}

// Names are those of one state. Values that are equal (==) are the same state.
type Names interface {
	// Part gives the names of one of so many parts, which are all names once; part
	// is from 0 to parts-1.
	Part(part, parts int) iter.Seq[Name]
	// Find gives a name by its form on the wire.
	Find(wire string) (Name, bool)
	// Len is about how many there are.
	Len() int
}

// Table is everything that the program answers by.
type Table struct {
	// Listen is where the proxy is asked: one port, of at most MaxListen addresses.
	Listen []netip.AddrPort
	// Flags of every answer, beside those that come from the query.
	Flags uint16
	// Zones are the bodies of the SOA records: type, class, TTL, length, data.
	Zones [][]byte
	Names Names
	// Clients are who may ask, where a packet filter would have judged it; at most
	// MaxClients of them. Empty: everybody. On lo everybody may.
	Clients []netip.Prefix
	// Loopback has the program run on lo too, for the host's own processes.
	Loopback bool
	// Uplinks are addresses of interfaces that lead to other nodes, not to a
	// container.
	Uplinks []netip.Addr
}

// Options of an Answerer.
type Options struct {
	// PinDir is a folder in bpffs, made when missing; "answers" below
	// dataplane.PinRoot when empty.
	PinDir string
	// Log gets what is attached, upgraded and repaired; nil means nowhere.
	Log *slog.Logger
	// MaxNames that have room; zero means 262,144. A map that is pinned already
	// keeps its size.
	MaxNames uint32
}

// Answerer answers for the DNS proxy by an eBPF program at TCX.
type Answerer struct {
	options  Options
	log      *slog.Logger
	dir      string // folder of the pinned maps
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection

	mu     sync.Mutex // guards what follows
	closed bool
	pinned bool // this process has seen its maps pinned
	links  pin.Links
	config *bpf.DnsAnswerDnsConfig // as it was written
	seed   uint64
	value  uint64 // the number of the last value that was written
	// current is what the map of names holds; nil while that is not sure.
	current Names
	// withdrawn: since Withdraw the map has the names of before and of the next
	// state, less those that differ.
	withdrawn bool
	zones     [][]byte // as they were written
	check     check
	left      int // names that found no room
	at        int // interfaces
}

// New loads the program against the pinned maps or, without any, new ones. It
// changes nothing that others can see: the first Set pins and attaches. The error
// says in words why the kernel cannot do it, as Supported does.
func New(o Options) (*Answerer, error) {
	if o.PinDir == "" {
		o.PinDir = filepath.Join(dataplane.PinRoot, "answers")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := Supported(); err != nil {
		return nil, err
	}
	a := &Answerer{options: o, log: o.Log, links: pin.Links{Dir: o.PinDir, Log: o.Log}}
	if err := a.load(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// Set makes the kernel hold the table: it reads back, writes what differs and is
// idempotent. Of the names it reads some back at each call, and in turn all,
// unless they are others than before: then it compares all, and nothing is
// answered until the next Beat.
func (a *Answerer) Set(ctx context.Context, t Table) (dataplane.Changes, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var c dataplane.Changes
	if a.closed {
		return c, errors.New("set answers: the answerer is closed")
	}
	for _, step := range []func() error{
		func() error { return a.pinMaps(&c) },
		func() error { return a.setConfig(t, &c) },
		func() error { return a.setZones(t.Zones, &c) },
		func() error { return a.setNames(ctx, t.Names, &c) },
		func() error { return a.setLinks(t, &c) },
		// Their programs have been replaced by now.
		func() error { return pin.RemoveLayouts(a.options.PinDir, layoutPrefix, a.dir, a.log) },
	} {
		if err := ctx.Err(); err != nil {
			return c, fmt.Errorf("set answers: %w", err)
		}
		if err := step(); err != nil {
			return c, fmt.Errorf("set answers: %w", err)
		}
	}
	return c, nil
}

// Interfaces is how many the program runs on.
func (a *Answerer) Interfaces() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at
}

// LeftOut is how many names the kernel has no room for.
func (a *Answerer) LeftOut() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}

// Close lets go of maps, programs and links. What is pinned stays, and works as
// long as somebody beats.
func (a *Answerer) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	faults := []error{a.links.Close()}
	for _, m := range a.maps {
		faults = append(faults, m.Close())
	}
	if a.programs != nil {
		a.programs.Close()
	}
	return errors.Join(faults...)
}

// count books one change: a repair when the object was ours and unchanged by us.
func (a *Answerer) count(c *dataplane.Changes, repair bool, kind, name string) {
	if !repair {
		c.Written++
		return
	}
	c.Repaired++
	a.log.Warn("kernel object repaired", "kind", kind, "name", name)
}
