// Package guard is the packet filter that IPVS needs at its side. IPVS lets
// what it does not serve pass on to the node itself, answers for an empty
// service in a way that the node's own clients see a second late, and sends
// what it forwards under the client's own address, whose answers may not come
// back this way. So one nftables table of ours
//
//   - refuses connections to ports that a virtual address does not serve, to
//     services without backends, and new ones to services whose backends all
//     drain: TCP by a reset, UDP by an ICMP error;
//   - keeps others' destination NAT, such as Docker's for published ports, off
//     the virtual addresses;
//   - masquerades what goes to a backend on another host and did not start on
//     this node, or started with a virtual address as its source.
//
// It needs Linux 5.2 (NAT in the inet family). Package ipvs calls it.
package guard

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/weirproject/weir/dataplane"
)

// TableName is the table, in the inet family.
const TableName = dataplane.BalancerTableName

// Frontend is a virtual address and port of one protocol.
type Frontend struct {
	UDP bool // else TCP
	At  netip.AddrPort
}

func (f Frontend) String() string {
	if f.UDP {
		return "udp/" + f.At.String()
	}
	return "tcp/" + f.At.String()
}

// Verdict says which packets to a frontend pass.
type Verdict string

// The verdicts.
const (
	Open     Verdict = "open"     // all
	Draining Verdict = "draining" // those of connections that are open
	Empty    Verdict = "empty"    // none
)

// Rules is what the table holds.
type Rules struct {
	// Networks are virtual: nothing in them reaches the node itself. They may
	// overlap.
	Networks []netip.Prefix
	// Frontends within the networks. Any other port is refused.
	Frontends map[Frontend]Verdict
}

// Guard is the table in the calling thread's network namespace. Its methods may
// be called from several goroutines.
type Guard struct {
	mu   sync.Mutex // held during every change; guards what follows
	last *content   // of the last Set
}

// New makes one. It does not touch the kernel.
func New() *Guard { return &Guard{} }

// Set makes the table hold the rules, in one atomic step. It reads back and is
// idempotent.
func (g *Guard) Set(ctx context.Context, r Rules) (dataplane.Changes, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	wanted := build(r)
	conn, err := dial(ctx)
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("set packet rules of virtual addresses: %w", err)
	}
	defer conn.CloseLasting()
	held, err := read(conn)
	if err != nil {
		return dataplane.Changes{}, fmt.Errorf("read packet rules of virtual addresses: %w", err)
	}
	if err := write(conn, held, wanted); err != nil {
		return dataplane.Changes{}, fmt.Errorf("set packet rules of virtual addresses: %w", err)
	}
	changes := compare(g.last, held, wanted)
	g.last = wanted
	return changes, nil
}

// Refused counts connections, or rather packets, since the table was made.
type Refused struct {
	Unserved uint64 // to ports that a virtual address does not serve
	Empty    uint64 // to services without a backend that takes them
}

// Counters reads them; all are zero without the table.
func (g *Guard) Counters() (Refused, error) {
	conn, err := dial(context.Background())
	if err != nil {
		return Refused{}, fmt.Errorf("read counters of virtual addresses: %w", err)
	}
	defer conn.CloseLasting()
	var r Refused
	for name, count := range map[string]*uint64{unservedChain: &r.Unserved, emptyChain: &r.Empty} {
		if *count, err = readCounter(conn, name); err != nil {
			return Refused{}, fmt.Errorf("read counters of virtual addresses: %w", err)
		}
	}
	return r, nil
}

// Exists tells whether the table is there.
func Exists() (bool, error) {
	conn, err := dial(context.Background())
	if err != nil {
		return false, fmt.Errorf("find nftables table %s: %w", TableName, err)
	}
	defer conn.CloseLasting()
	t, err := find(conn)
	return t != nil, err
}

// Cleanup removes the table from the calling thread's network namespace and
// tells whether it was there.
func Cleanup() (bool, error) {
	conn, err := dial(context.Background())
	if err != nil {
		return false, fmt.Errorf("remove nftables table %s: %w", TableName, err)
	}
	defer conn.CloseLasting()
	if t, err := find(conn); err != nil || t == nil {
		return false, err
	}
	conn.DelTable(table())
	if err := conn.Flush(); err != nil {
		return false, fmt.Errorf("remove nftables table %s: %w", TableName, err)
	}
	return true, nil
}
