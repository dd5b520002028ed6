// Package edge is the sink for traffic from outside: packet programs at XDP or
// TCX on a node's edge interfaces that send each packet for a virtual address on
// to a backend. It loads the programs of bpf/edge.c, attaches them and keeps their
// maps equal to a dataplane.EdgeTable. Maps and links are pinned, so packets go on
// without this process.
//
// It decides nothing about which backend is up or how the slots are dealt out:
// that is in the table. The agent calls it; DESIGN.md tells why it is built as it
// is.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/room"
)

// Hop is the way to the next machine.
type Hop struct {
	// Interface is the index of the device that packets leave by: not of a VLAN
	// device, but of the one below it.
	Interface int
	// Source is the device's Ethernet address, Destination the next machine's.
	Source, Destination [6]byte
	// VLAN is the tag that packets get, 1 to 4094; 0 means none.
	VLAN uint16
	// MTU of IP packets on the way, in bytes.
	MTU int
}

// Hops finds next hops.
type Hops interface {
	// NextHop tells how packets get to the address. With an error, the program
	// asks the kernel for each packet.
	NextHop(to netip.Addr) (Hop, error)
}

// DefaultSettle is how long after a change of slots a UDP flow that is not known
// counts as one that began before it.
const DefaultSettle = 30 * time.Second

// Ports are a range of ports, both ends included.
type Ports struct{ First, Last uint16 }

// The default of Options.NATPorts. One line in sysctl.d keeps the node's own
// connections off them: net.ipv4.ip_local_reserved_ports = 50000-65535.
const (
	DefaultFirstNATPort = 50000
	DefaultLastNATPort  = 65535
)

// Options of an Edge.
type Options struct {
	// PinDir is a folder in bpffs, made when missing; dataplane.PinRoot + "/edge"
	// when empty.
	PinDir string
	// Hops finds next hops; nil means that the kernel is asked for every packet,
	// which works on interfaces that forward only. The answers of backends behind
	// NAT are awaited on the interfaces of their hops; where the hop is not known,
	// on those of the table alone.
	Hops Hops
	// Settle is the time for UDP flows to show up after a change; DefaultSettle
	// when zero.
	Settle time.Duration
	// NATPorts are this node's ports towards backends behind NAT, each for one flow
	// to one backend; DefaultFirstNATPort to DefaultLastNATPort when zero. Set warns when the node's own
	// connections may take them too, since the two would meet.
	NATPorts Ports
	// Log gets what is attached, upgraded and repaired; nil means nowhere.
	Log *slog.Logger
	// Sizes of the maps. A map that is pinned already keeps its size.
	Sizes Sizes
}

// Validate names the field that is wrong.
func (o Options) Validate() error {
	if o.Settle < 0 {
		return fmt.Errorf("options: Settle %s is negative", o.Settle)
	}
	if p := o.NATPorts; p != (Ports{}) && (p.First < 1024 || p.Last < p.First) {
		return fmt.Errorf("options: NATPorts %d to %d is not a range within 1024 to 65535", p.First, p.Last)
	}
	return nil
}

// Edge implements dataplane.Edge.
type Edge struct {
	options  Options
	log      *slog.Logger
	dir      string // folder of the pinned maps
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection
	nat      *ebpf.Collection // nil until it is needed, and where natFault says why it cannot be
	natFault error
	cells    cells

	reasons    []string // names, by enum edge_reason
	faults     []string // names, by enum packet_fault
	natResults []string // names, by enum nat_result

	mu       sync.Mutex // guards what follows and lets one Set write at a time
	closed   bool
	links    map[linkPlace]link.Link
	made     made
	pinned   bool              // this process has seen its maps pinned
	adopted  bool              // the maps are an earlier process's and not swept yet
	entries  map[string]*entry // by service name: what the kernel holds
	ids      *room.IDs         // of services
	backends *room.IDs
	hopIDs   *room.IDs
	hops     map[bpf.EdgeEdgeHop]uint32
	slots    *room.Runs
	birth    uint32 // of the latest backend
}

// made is what this process has written and did not take back: if the kernel has
// something else, somebody else changed it.
type made struct {
	frontends map[bpf.EdgeFrontendKey]uint32 // service id
	addresses map[bpf.EdgeAddress]bool
	allowed   map[bpf.EdgeEdgeAllowKey]bool
	config    bool
	nat       bool
	filter    []uint64
	attached  map[int]bool // interfaces, by index
	natConfig bpf.EdgeNatNatConfig
	jumps     map[string]bool // to the programs for NAT
}

// New loads the programs against the pinned maps or, without any, new ones. It
// changes nothing that others can see: the first Set pins and attaches. It fails
// where the kernel cannot run the programs. They run on Linux 6.1, the oldest that
// they are tested on, by XDP and with NAT; TCX is in Linux 6.6 and later, and where
// it is missing Set says so.
func New(o Options) (*Edge, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.PinDir == "" {
		o.PinDir = filepath.Join(dataplane.PinRoot, "edge")
	}
	if o.Settle == 0 {
		o.Settle = DefaultSettle
	}
	if o.NATPorts == (Ports{}) {
		o.NATPorts = Ports{DefaultFirstNATPort, DefaultLastNATPort}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Edge{
		options: o, log: o.Log, links: map[linkPlace]link.Link{}, hops: map[bpf.EdgeEdgeHop]uint32{},
		made: made{
			frontends: map[bpf.EdgeFrontendKey]uint32{}, addresses: map[bpf.EdgeAddress]bool{},
			allowed: map[bpf.EdgeEdgeAllowKey]bool{}, attached: map[int]bool{}, jumps: map[string]bool{},
		},
	}
	if err := e.load(); err != nil {
		e.Close()
		return nil, err
	}
	e.recover()
	return e, nil
}

// Backend implements dataplane.Edge.
func (e *Edge) Backend() string { return "xdp" }

// Set implements dataplane.Edge. A *dataplane.LeftOut names the services that
// could not be programmed; it is joined with the errors of interfaces to which
// nothing could be attached, while the others work. Next hops are asked for anew
// each time, so Set is also to be called when one has changed.
func (e *Edge) Set(ctx context.Context, t dataplane.EdgeTable) (dataplane.Changes, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var c dataplane.Changes
	if e.closed {
		return c, errors.New("set edge: it is closed")
	}
	w := e.compile(t)
	if err := e.set(ctx, w, &c); err != nil {
		return c, err
	}
	err := e.setLinks(t.Interfaces, w, &c)
	if len(w.left) > 0 {
		err = errors.Join(&dataplane.LeftOut{Services: w.left}, err)
	}
	if err != nil {
		return c, err
	}
	return c, e.removeOldLayouts()
}

// set writes in the order in which each step is of use to the next: nothing
// points to what is not there yet, and what is removed is not pointed to any
// more. The programs come last, so that they never run on half a table.
func (e *Edge) set(ctx context.Context, w *wanted, c *dataplane.Changes) error {
	if err := e.pinMaps(c); err != nil {
		return err
	}
	e.sweep()
	if err := e.setNAT(w, c); err != nil {
		return err
	}
	e.setConfig(w, c)
	e.setHops(w, c)
	if err := e.readAllowed(w); err != nil {
		return err
	}
	for _, s := range w.services {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set edge: %w", err)
		}
		if err := e.setService(w, s, c); err != nil {
			w.leave(s.name, err)
		}
	}
	if err := e.setFrontends(w, c); err != nil {
		return err
	}
	e.removeServices(w, c)
	e.retireHops(c)
	return e.removeAllowed(w, c)
}

// Close lets go of maps, programs and links. What is pinned stays and works.
func (e *Edge) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	var faults []error
	for _, l := range e.links {
		faults = append(faults, l.Close())
	}
	faults = append(faults, e.cells.close())
	for _, m := range e.maps {
		faults = append(faults, m.Close())
	}
	for _, c := range []*ebpf.Collection{e.programs, e.nat} {
		if c != nil {
			c.Close()
		}
	}
	return errors.Join(faults...)
}

// count books one change: a repair when the object was ours and unchanged by us.
func (e *Edge) count(c *dataplane.Changes, repair bool, kind, name string) {
	if !repair {
		c.Written++
		return
	}
	c.Repaired++
	e.log.Warn("kernel object repaired", "kind", kind, "name", name)
}

// interfaceIndex finds a device of this process's network namespace.
func interfaceIndex(name string) (int, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return device.Index, nil
}
