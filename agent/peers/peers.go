// Package peers finds out which nodes of the fleet are gone, by the nodes
// themselves: each watches a few others, asks third ones before it believes
// that one has gone, and tells everybody. It needs no controller and no
// consensus. It decides nothing but the health of nodes; the agent takes their
// backends out.
//
// What counts as alive is a node's kernel, not its agent: DESIGN.md says how
// the two are told apart, and why the times are what they are.
package peers

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
)

// Port is where agents speak to each other, by UDP. By TCP nobody listens
// there: that the kernel refuses a connection tells that the node is alive.
const Port = api.PeerPort

// minKey is the least length of a key, in bytes.
const minKey = 16

// Options of a Detector.
type Options struct {
	// Self is the name of this node.
	Self string
	// Listen is where to receive; the zero address means all, port 0 means Port.
	// Others are expected at the same port.
	Listen netip.AddrPort
	// Key that all nodes of the fleet have, at least 16 bytes.
	Key []byte
	Log *slog.Logger // nil: no log
	// Registerer takes the metrics; nil: none.
	Registerer prometheus.Registerer
	// OnChange is called when a node's health has changed; it must not block.
	OnChange func(node string, health api.NodeHealth)
	// Probe tells whether the node at the address is reached; nil asks its kernel
	// by TCP.
	Probe ProbeFunc
}

// Detector watches nodes.
type Detector struct {
	self    string
	port    uint16
	listen  netip.AddrPort
	key     []byte
	log     *slog.Logger
	metrics *metrics
	changed func(string, api.NodeHealth)
	probe   ProbeFunc
	session uint64 // of this run; random
	open    func() (conn, error)
	conn    conn

	mu       sync.Mutex // guards what follows
	members  map[string]*member
	ring     []string // the members' names, this one's included, in the order of the ring
	own      uint64   // incarnation of this node
	sequence uint64
	sum      uint64 // see digest; stale when it is to be made anew
	stale    bool
	vouched  time.Time // when somebody else was last heard of, such as a controller
	news     []change  // to be told to OnChange once mu is free
}

// change of a node's health.
type change struct {
	node   string
	health api.NodeHealth
}

// New watches nobody yet. The error names a bad option.
func New(o Options) (*Detector, error) {
	if o.Self == "" {
		return nil, errors.New("watch peers: the node's own name is missing")
	}
	if len(o.Key) < minKey {
		return nil, fmt.Errorf("watch peers: the key has %d bytes and needs at least %d", len(o.Key), minKey)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Detector{
		self: o.Self, port: o.Listen.Port(), listen: o.Listen, key: o.Key, log: o.Log.With("component", "peers"),
		metrics: newMetrics(o.Registerer), changed: o.OnChange, probe: o.Probe,
		members: map[string]*member{},
	}
	d.open = d.listenUDP
	if d.changed == nil {
		d.changed = func(string, api.NodeHealth) {}
	}
	if d.port == 0 {
		d.port = Port
	}
	if d.probe == nil {
		d.probe = kernelProbe(d.port)
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	d.session = binary.BigEndian.Uint64(random[:]) | 1
	return d, nil
}

// conn is the socket.
type conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	Close() error
}

// Set makes these the nodes of the fleet, this one among them or not. What is
// known of those that stay is kept.
func (d *Detector) Set(nodes []api.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted := make(map[string]bool, len(nodes))
	now, rearranged := time.Now(), false
	for i := range nodes {
		n := &nodes[i]
		if n.Name == d.self || len(n.Addresses) == 0 {
			continue
		}
		wanted[n.Name] = true
		address := netip.AddrPortFrom(n.Addresses[0].Unmap(), d.port)
		if m := d.members[n.Name]; m != nil {
			m.address = address
			continue
		}
		d.members[n.Name] = &member{name: n.Name, address: address, evidence: now}
		rearranged = true
	}
	for name := range d.members {
		if !wanted[name] {
			delete(d.members, name)
			rearranged = true
		}
	}
	if rearranged {
		d.arrange()
	}
}

// listenUDP opens the socket.
func (d *Detector) listenUDP() (conn, error) {
	address := &net.UDPAddr{Port: int(d.port)}
	if d.listen.Addr().IsValid() {
		address.IP = d.listen.Addr().AsSlice()
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return nil, fmt.Errorf("watch peers: listen at UDP port %d: %w", d.port, err)
	}
	return socket, nil
}

// Run opens the socket and watches until ctx ends. It may be run again after an
// error.
func (d *Detector) Run(ctx context.Context) error {
	socket, err := d.open()
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.conn = socket
	d.restart(time.Now())
	d.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return d.conn.Close()
	})
	g.Go(func() error { return d.receive(ctx) })
	g.Go(func() error { return d.watch(ctx) })
	return g.Wait()
}

// restart gives everybody the time since nobody was listened to. Guarded by mu.
func (d *Detector) restart(now time.Time) {
	for _, m := range d.members {
		m.evidence = now
	}
}

// Health of a node. It is not known of a node that was never heard of, by
// nobody.
func (d *Detector) Health(node string) (health api.NodeHealth, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.members[node]
	if m == nil || !m.known {
		return "", false
	}
	return m.health(), true
}

// All that is known, by node; those that are not known are left out.
func (d *Detector) All() map[string]api.NodeHealth {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[string]api.NodeHealth, len(d.members))
	for name, m := range d.members {
		if m.known {
			all[name] = m.health()
		}
	}
	return all
}

// Vouch tells that this node was reached from outside a moment ago, by a
// controller: it is not cut off from all.
func (d *Detector) Vouch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vouched = time.Now()
}

// Reach tells whether this node reaches another, now: what a controller asks.
// It tells the agent's opinion also when the node is none of the members.
func (d *Detector) Reach(ctx context.Context, n api.Node, within time.Duration) bool {
	d.mu.Lock()
	m := d.members[n.Name]
	heard := m != nil && time.Since(m.heard) < heardLately
	d.mu.Unlock()
	if heard {
		return true
	}
	for _, a := range n.Addresses {
		if d.probe(ctx, a.Unmap(), within) == Reached {
			return true
		}
	}
	return false
}
