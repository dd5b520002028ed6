package link

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What NextHop fails with, besides errors of the kernel.
var (
	// ErrUnresolved: the Ethernet address is not known yet. It has been asked
	// for; Changes tells when it is there.
	ErrUnresolved = errors.New("ethernet address not known yet")
	// ErrNoRoute: no route leads there.
	ErrNoRoute = errors.New("no route")
	// ErrLocal: the address is one of this node.
	ErrLocal = errors.New("is an address of this node")
	// ErrNotEthernet: the way there starts at an interface without Ethernet
	// addresses.
	ErrNotEthernet = errors.New("not reached over ethernet")
)

// Hop is how a packet leaves this node for some address.
type Hop struct {
	Interface   int // index
	Source      MAC // of the interface
	Destination MAC // of the next hop: the host itself, or a router
	MTU         int // of the way, as far as this node knows; in bytes, from the IP header on
}

// HopsOptions configure Hops.
type HopsOptions struct {
	// Log may be nil.
	Log *slog.Logger
}

// Hops finds next hops for programs that send packets past the kernel's own
// routing, and keeps them true while routes, neighbours and interfaces change.
type Hops struct {
	log     *slog.Logger
	handle  *netlink.Handle
	events  *os.File
	raw     syscall.RawConn
	changes chan struct{}

	mu    sync.Mutex // guards what follows; held across reads of the kernel's own tables
	links map[int]device
	near  map[neighbourKey]neighbour
	known map[netip.Addr]*hopEntry
}

type hopEntry struct {
	way way
	hop Hop
	err error
}

// way is what the routes say of an address.
type way struct {
	key neighbourKey
	mtu int // 0: the interface's
	err error
}

type device struct {
	mac MAC
	mtu int
	up  bool
	// ethernet tells whether it has a MAC; silent whether it resolves none.
	ethernet, silent bool
}

// neighbourKey names an entry of the neighbour table.
type neighbourKey struct {
	link int
	addr netip.Addr
}

type neighbour struct {
	mac   MAC
	state int
}

// valid are the states in which the kernel itself would use the address.
const valid = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

// NewHops reads the tables of the caller's network namespace. What it answers
// stays as it was until Run.
func NewHops(o HopsOptions) (*Hops, error) {
	h := &Hops{log: o.Log, changes: make(chan struct{}, 1), known: map[netip.Addr]*hopEntry{}}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	// Changes are subscribed to before the tables are read, so none is missed.
	if err := h.subscribe(); err != nil {
		return nil, fmt.Errorf("subscribe to changes of routes and neighbours: %w", err)
	}
	var err error
	if h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		h.events.Close()
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	if err := h.readTables(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Close lets go of the sockets of Hops that do not Run.
func (h *Hops) Close() error {
	h.handle.Close()
	return closed(h.events.Close())
}

// Changes gets a value when an answer of NextHop has changed since the last
// one was taken.
func (h *Hops) Changes() <-chan struct{} { return h.changes }

// NextHop tells how packets for the address leave this node. It does not wait:
// where the Ethernet address is unknown it asks for it and fails with
// ErrUnresolved; ErrNoRoute, ErrLocal and ErrNotEthernet are the other answers.
// From then on the address is watched, until Keep leaves it out.
func (h *Hops) NextHop(addr netip.Addr) (Hop, error) {
	addr = addr.Unmap()
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.known[addr]
	if !ok {
		e = &hopEntry{way: h.route(addr)}
		e.hop, e.err = h.resolve(e.way)
		h.known[addr] = e
	}
	if e.err != nil {
		return Hop{}, fmt.Errorf("find next hop of %s: %w", addr, e.err)
	}
	return e.hop, nil
}

// Keep forgets all addresses but these.
func (h *Hops) Keep(addresses []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		kept[a.Unmap()] = true
	}
	maps.DeleteFunc(h.known, func(a netip.Addr, _ *hopEntry) bool { return !kept[a] })
}

// route asks the kernel for the way to the address.
func (h *Hops) route(addr netip.Addr) way {
	routes, err := h.handle.RouteGet(net.IP(addr.AsSlice()))
	var errno syscall.Errno
	switch errors.As(err, &errno); {
	case errno == unix.ENETUNREACH, errno == unix.EHOSTUNREACH, err == nil && len(routes) == 0:
		return way{err: ErrNoRoute}
	case errno == unix.EINVAL, errno == unix.EACCES: // of a blackhole, and of a prohibited route
		return way{err: ErrNoRoute}
	case err != nil:
		return way{err: fmt.Errorf("get route: %w", err)}
	}
	r := routes[0]
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		return way{err: ErrLocal}
	default:
		return way{err: fmt.Errorf("%w: its kind is %d", ErrNoRoute, r.Type)}
	}
	w := way{key: neighbourKey{r.LinkIndex, addr}, mtu: r.MTU}
	gateway := r.Gw
	if via, ok := r.Via.(*netlink.Via); ok { // an IPv4 route by way of an IPv6 router
		gateway = via.Addr
	}
	if gw, ok := netip.AddrFromSlice(gateway); ok {
		w.key.addr = gw.Unmap()
	}
	return w
}

// resolve makes a hop of a way, and has the kernel ask for the Ethernet
// address where it is unknown or has not been confirmed for long.
func (h *Hops) resolve(w way) (Hop, error) {
	if w.err != nil {
		return Hop{}, w.err
	}
	d, ok := h.links[w.key.link]
	switch {
	case !ok || !d.up:
		return Hop{}, fmt.Errorf("%w: interface %d is down", ErrNoRoute, w.key.link)
	case !d.ethernet || d.silent:
		return Hop{}, ErrNotEthernet
	}
	n := h.near[w.key]
	if n.state&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT|netlink.NUD_NOARP|netlink.NUD_DELAY|netlink.NUD_PROBE) == 0 {
		h.ask(w.key)
	}
	if n.state&valid == 0 || n.mac == (MAC{}) {
		return Hop{}, ErrUnresolved
	}
	mtu := d.mtu
	if w.mtu > 0 {
		mtu = min(mtu, w.mtu)
	}
	return Hop{Interface: w.key.link, Source: d.mac, Destination: n.mac, MTU: mtu}, nil
}

// ask has the kernel find out the neighbour's address, as if it had a packet
// for it: NTF_USE sends solicitations and nothing else, and leaves an ordinary
// entry that ages like any other. It must not be used on a permanent entry,
// which it would turn into one that ages (Linux 5.16).
func (h *Hops) ask(key neighbourKey) {
	family := unix.AF_INET6
	if key.addr.Is4() {
		family = unix.AF_INET
	}
	err := h.handle.NeighSet(&netlink.Neigh{LinkIndex: key.link, Family: family, Flags: netlink.NTF_USE, IP: key.addr.AsSlice()})
	if err != nil {
		h.log.Debug("neighbour not asked for", "address", key.addr, "interface", key.link, "error", err)
	}
}

// Known lists the addresses that are watched, sorted.
func (h *Hops) Known() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Keys(h.known), netip.Addr.Compare)
}
