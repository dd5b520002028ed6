package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Tunnel is the way on which this node, an edge node, sends clients' packets to
// a backend.
type Tunnel struct {
	// VIP is the frontend that the check asks for, of the backend's family.
	VIP netip.AddrPort
	// Node is the address of the backend's node, where the tunnel ends. A
	// backend on this very node has no Tunnel: what a node sends to itself does
	// not pass the interface where tunnels are opened.
	Node netip.Addr
	// Source is this node's address of VIP's family. The check comes from it,
	// and the answer goes to it.
	Source netip.Addr
	// Outer is this node's address of Node's family, from which the tunnel
	// comes; Source when invalid.
	Outer netip.Addr
}

// check tells what is wrong with it.
func (t Tunnel) check(backend netip.AddrPort) error {
	v6 := t.VIP.Addr().Is6()
	switch {
	case !t.VIP.IsValid() || t.VIP.Port() == 0 || backend.Addr().Is6() != v6:
		return fmt.Errorf("no virtual address of the family of %s", backend)
	case !t.Source.IsValid() || t.Source.Is6() != v6:
		return fmt.Errorf("this node has no address of the family of %s", t.VIP)
	case !t.Node.IsValid() || t.Outer.Is6() != t.Node.Is6():
		return fmt.Errorf("no tunnel leads from %s to the backend's node %s", t.Outer, t.Node)
	}
	return nil
}

// plain has no IPv4 address mapped to IPv6.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// firstRetry is when a SYN that nobody has answered is sent again, and then
// after twice the time each, as TCP does (RFC 6298).
const firstRetry = time.Second

// tunnelProbe opens half a connection: what a SYN-ACK proves of the way and the
// backend a whole one would not prove better, and it costs no socket.
type tunnelProbe struct {
	tunnels *tunnels
	way     Tunnel
	backend netip.AddrPort
}

func newTunnelProbe(tunnels *tunnels, way Tunnel, backend netip.AddrPort) probeFunc {
	if !way.Outer.IsValid() {
		way.Outer = way.Source
	}
	way = Tunnel{VIP: plain(way.VIP), Node: way.Node.Unmap(), Source: way.Source.Unmap(), Outer: way.Outer.Unmap()}
	p := tunnelProbe{tunnels: tunnels, way: way, backend: plain(backend)}
	if err := way.check(p.backend); err != nil {
		return func(context.Context) error { return err }
	}
	return p.probe
}

func (p *tunnelProbe) probe(ctx context.Context) error {
	port, outer, err := p.tunnels.take(p.way)
	if err != nil {
		return unmade{fmt.Errorf("prepare a check through the tunnel: %w", err)}
	}
	c := call{probe: p, port: port, outer: outer, seq: p.tunnels.sequence()}
	err = c.open(ctx)
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if !refused {
		// Also when nothing was heard: the answer may have been lost. Should
		// this be lost, the next check finds out.
		_ = c.send(c.seq+1, flagRST)
	}
	// A port that may still get an answer is given up.
	p.tunnels.giveBack(port, err == nil || refused)
	return err
}

// call is one check of a tunnelProbe.
type call struct {
	probe *tunnelProbe
	port  *port
	outer *net.UDPConn
	seq   uint32 // of the SYN
}

// open sends the SYN and waits for what comes of it.
func (c *call) open(ctx context.Context) error {
	if err := c.send(c.seq, flagSYN); err != nil {
		return err
	}
	wait := firstRetry
	retry := time.NewTimer(wait)
	defer retry.Stop()
	restarted := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-retry.C:
			wait *= 2
			retry.Reset(wait)
			if err := c.send(c.seq, flagSYN); err != nil {
				return err
			}
		case s := <-c.port.answers:
			switch c.judge(s) {
			case opened:
				return nil
			case refused:
				return fmt.Errorf("connect to %s through the tunnel to %s: %w", c.probe.way.VIP, c.probe.way.Node, syscall.ECONNREFUSED)
			case damaged:
				return answered("%s answered with a wrong checksum", c.probe.way.VIP)
			case stale:
				if restarted {
					continue
				}
				restarted = true
				if err := errors.Join(c.send(s.ack, flagRST), c.send(c.seq, flagSYN)); err != nil {
					return err
				}
			}
		}
	}
}

// outcome is what a segment means for a call.
type outcome int

const (
	ignored outcome = iota
	opened
	refused
	damaged
	// stale: the backend still has the half connection of an earlier check whose
	// RST was lost, and has to be told first (RFC 9293 section 3.10.7.3).
	stale
)

func (c *call) judge(s segment) outcome {
	switch {
	case s.from != c.probe.way.VIP || s.flags&flagACK == 0:
		return ignored
	case s.damaged:
		return damaged
	case s.ack != c.seq+1 && s.flags&flagRST == 0:
		return stale
	case s.ack != c.seq+1:
		return ignored
	case s.flags&flagRST != 0:
		return refused
	case s.flags&flagSYN != 0:
		return opened
	}
	return ignored
}

// send sends a segment to the backend by way of its node.
func (c *call) send(seq uint32, flags byte) error {
	way := c.probe.way
	b := appendGUE(make([]byte, 0, maxTunnelled), c.probe.backend)
	b = appendSegment(b, segment{from: c.port.local, to: way.VIP, seq: seq, flags: flags})
	_, err := c.outer.WriteToUDPAddrPort(b, netip.AddrPortFrom(way.Node, guePort))
	// This node's own filter, or an address that it has no more.
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL) {
		return unmade{err}
	}
	return err
}
