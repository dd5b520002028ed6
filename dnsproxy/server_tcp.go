package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// idleTimeout is how long a connection may take for its next whole query.
	idleTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second
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

	mu    sync.Mutex // guards conns and clients
	conns map[*net.TCPConn]bool
	// clients counts the connections by address.
	clients map[netip.Addr]int
}

func newTCPServer(p *Proxy) *tcpServer {
	return &tcpServer{
		proxy: p, stats: p.metrics.newCounters("tcp"), conns: map[*net.TCPConn]bool{}, clients: map[netip.Addr]int{},
		buffers: sync.Pool{New: func() any { return new([tcpSize]byte) }},
	}
}

// run accepts connections until the door is closed, then ends those there are.
func (t *tcpServer) run(ctx context.Context, door *net.TCPListener) error {
	defer t.wg.Wait()
	defer t.closeAll()
	for {
		conn, err := door.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
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
		client := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !t.admit(conn, client) {
			t.stats.dropped.Add(1)
			conn.Close()
			continue
		}
		t.wg.Go(func() {
			defer t.leave(conn, client)
			newTCPConn(t, conn).run()
		})
	}
}

func (t *tcpServer) admit(conn *net.TCPConn, client netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) >= t.proxy.options.MaxConns || t.clients[client] >= t.proxy.options.MaxClientConns {
		return false
	}
	t.conns[conn] = true
	t.clients[client]++
	return true
}

func (t *tcpServer) leave(conn *net.TCPConn, client netip.Addr) {
	conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
	if t.clients[client]--; t.clients[client] == 0 {
		delete(t.clients, client)
	}
}

func (t *tcpServer) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.conns {
		conn.Close()
	}
}

// tcpConn is one connection. Queries are answered as they come, many by one
// write; those that wait for upstreams follow when they can (RFC 7766, 6.2.1.1).
type tcpConn struct {
	worker
	conn    *net.TCPConn
	buffers *sync.Pool
	pending sync.WaitGroup
	slots   chan struct{} // one per pending question

	writing sync.Mutex // one writer at a time; held over a write of at most writeTimeout
}

func newTCPConn(t *tcpServer, conn *net.TCPConn) *tcpConn {
	return &tcpConn{worker: worker{proxy: t.proxy, tcp: true, stats: t.stats}, conn: conn, buffers: &t.buffers, slots: make(chan struct{}, maxPending)}
}

// run serves until the client closes, idles, or sends what is no DNS.
func (c *tcpConn) run() {
	defer c.pending.Wait() // a client may close its side and read on
	buffer := make([]byte, 4096)
	var out []byte
	filled := 0
	c.conn.SetReadDeadline(time.Now().Add(idleTimeout))
	for {
		n, err := c.conn.Read(buffer[filled:])
		filled += n
		var used int
		var ok bool
		out, used, ok = c.frames(buffer[:filled], out[:0])
		if len(out) > 0 && c.write(out) != nil || !ok || err != nil {
			return
		}
		if used > 0 {
			// Only whole queries buy time: a client that drips bytes has none.
			c.conn.SetReadDeadline(time.Now().Add(idleTimeout))
			filled = copy(buffer, buffer[used:filled])
		}
		if filled == len(buffer) {
			buffer = append(buffer, make([]byte, min(2*len(buffer), 2+tcpSize)-len(buffer))...)
		}
	}
}

// frames answers every whole query in data and gives the bytes that they took.
func (c *tcpConn) frames(data, out []byte) (answers []byte, used int, ok bool) {
	now, answer := c.proxy.now(), c.buffers.Get().(*[tcpSize]byte)
	defer c.buffers.Put(answer)
	for len(data)-used >= 2 {
		size := int(binary.BigEndian.Uint16(data[used:]))
		if size < headerSize {
			return out, used, false
		}
		if len(data)-used-2 < size {
			break
		}
		n, miss := c.serve(data[used+2:used+2+size], answer[:], now)
		used += 2 + size
		if n > 0 {
			out = append(binary.BigEndian.AppendUint16(out, uint16(n)), answer[:n]...)
		}
		if len(out) > tcpSize || miss && len(out) > 0 {
			if c.write(out) != nil { // nobody waits for somebody else's upstream
				return nil, used, false
			}
			out = out[:0]
		}
		if miss {
			c.wait()
		}
	}
	return out, used, true
}

// wait lets the last query wait for an upstream.
func (c *tcpConn) wait() {
	c.slots <- struct{}{}
	c.pending.Add(1)
	c.submit(func(answer []byte) {
		defer c.pending.Done()
		defer func() { <-c.slots }()
		frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if c.write(append(frame, answer...)) != nil {
			c.stats.unsent.Add(1)
		}
	})
}

func (c *tcpConn) write(data []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.conn.Write(data); err != nil {
		c.conn.Close() // a frame cut in the middle: what follows would be misread
		return fmt.Errorf("send answers: %w", err)
	}
	return nil
}
