package dnsproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleTimeout is how long a connection may take for its next whole query,
	// and crowdedTimeout the same while more than half of the places are taken
	// (RFC 7766, 6.2.3). When all are, the one that has idled longest makes
	// room, if for at least makeRoomAfter.
	idleTimeout    = 10 * time.Second
	crowdedTimeout = 2 * time.Second
	makeRoomAfter  = time.Second
	writeTimeout   = 5 * time.Second
	// maxPending bounds a connection's questions that wait for upstreams; it
	// is not read on until some are answered.
	maxPending = 64
)

// tcpServer serves the TCP connections of one address, a goroutine each.
type tcpServer struct {
	proxy *Proxy
	stats *counters
	wg    sync.WaitGroup
	// buffers hold one answer of any size; an idle connection has none.
	buffers sync.Pool

	transfers atomic.Int32

	mu    sync.Mutex // guards conns and clients
	conns map[*tcpConn]bool
	// clients counts the connections by address.
	clients map[netip.Addr]int
}

func newTCPServer(p *Proxy, proto string) *tcpServer {
	return &tcpServer{
		proxy: p, stats: p.metrics.newCounters(proto), conns: map[*tcpConn]bool{}, clients: map[netip.Addr]int{},
		buffers: sync.Pool{New: func() any { return new([tcpSize]byte) }},
	}
}

// tapProto is what dnstap calls the protocol.
func (t *tcpServer) tapProto() uint64 {
	if t.stats.proto == "tls" {
		return tapTLS
	}
	return tapTCP
}

// run accepts connections until the door is closed, then ends those there are.
func (t *tcpServer) run(ctx context.Context, door net.Listener) error {
	defer t.wg.Wait()
	defer t.closeAll()
	for {
		conn, err := door.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded): // drained: connections go on
			<-ctx.Done()
			return nil
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			// Out of files, or the client has gone: neither is an end.
			t.proxy.log.Warn("connection not accepted", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		c := newTCPConn(t, conn)
		if !t.admit(c) {
			t.stats.dropped.Add(1)
			conn.Close()
			continue
		}
		t.wg.Go(func() {
			defer t.leave(c)
			defer t.proxy.guard("serving a connection")
			c.run()
		})
	}
}

func (t *tcpServer) admit(c *tcpConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients[c.from.peer] >= t.proxy.options.MaxClientConns || len(t.conns) >= t.proxy.options.MaxConns && !t.makeRoom() {
		return false
	}
	t.conns[c] = true
	t.clients[c.from.peer]++
	return true
}

// makeRoom closes the connection that has idled longest. It wants mu held.
func (t *tcpServer) makeRoom() bool {
	var idlest *tcpConn
	oldest := t.proxy.now() - int64(makeRoomAfter)
	for c := range t.conns {
		if heard := c.heard.Load(); heard < oldest {
			idlest, oldest = c, heard
		}
	}
	if idlest == nil {
		return false
	}
	idlest.conn.Close() // its goroutine takes leave
	t.stats.dropped.Add(1)
	t.forget(idlest)
	return true
}

// forget takes a connection off the counts, once. It wants mu held.
func (t *tcpServer) forget(c *tcpConn) {
	if !t.conns[c] {
		return
	}
	delete(t.conns, c)
	if t.clients[c.from.peer]--; t.clients[c.from.peer] == 0 {
		delete(t.clients, c.from.peer)
	}
}

func (t *tcpServer) leave(c *tcpConn) {
	c.conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(c)
}

// patience is how long a connection may take for its next query.
func (t *tcpServer) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if 2*len(t.conns) > t.proxy.options.MaxConns {
		return crowdedTimeout
	}
	return idleTimeout
}

func (t *tcpServer) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		c.conn.Close()
	}
}
