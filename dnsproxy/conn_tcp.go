package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// tcpConn is one connection. Queries are answered as they come, many by one
// write; those that wait for upstreams follow when they can (RFC 7766, 6.2.1.1).
type tcpConn struct {
	worker
	server  *tcpServer
	conn    net.Conn
	pending sync.WaitGroup
	peer    netip.AddrPort
	slots   chan struct{} // one per pending question
	heard   atomic.Int64  // when a whole query last came, on the proxy's clock

	writing sync.Mutex // one writer at a time; held over a write of at most writeTimeout
}

func newTCPConn(t *tcpServer, conn net.Conn) *tcpConn {
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	c := &tcpConn{
		worker: worker{proxy: t.proxy, from: client{tcp: true, peer: peer.Addr().Unmap()}, stats: t.stats, local: local},
		server: t, conn: conn, peer: peer, slots: make(chan struct{}, maxPending),
	}
	c.heard.Store(t.proxy.now())
	return c
}

// run serves until the client closes, idles, or sends what is no DNS.
func (c *tcpConn) run() {
	defer c.pending.Wait()              // a client may close its side and read on
	buffer := make([]byte, 2+queryRoom) // a longer query is none
	var out []byte
	filled := 0
	c.conn.SetDeadline(time.Now().Add(c.server.patience())) // a TLS handshake writes too
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
			c.heard.Store(c.proxy.now())
			c.conn.SetReadDeadline(time.Now().Add(c.server.patience()))
			filled = copy(buffer, buffer[used:filled])
		}
	}
}

// frames answers every whole query in data and gives the bytes that they took.
func (c *tcpConn) frames(data, out []byte) (answers []byte, used int, ok bool) {
	now, answer, local := c.proxy.now(), c.server.buffers.Get().(*[tcpSize]byte), 0
	defer func() {
		if local > 0 {
			took := time.Duration(c.proxy.now() - now)
			c.stats.mu.Lock()
			c.stats.tally.local.observe(took, local)
			c.stats.mu.Unlock()
		}
	}()
	defer c.server.buffers.Put(answer)
	for len(data)-used >= 2 {
		size := int(binary.BigEndian.Uint16(data[used:]))
		if size < headerSize || size > queryRoom {
			return out, used, false
		}
		if len(data)-used-2 < size {
			break
		}
		n, miss := c.serve(data[used+2:used+2+size], answer[:], now)
		if tap := c.proxy.tap; tap != nil {
			tap.stream(c, data[used+2:used+2+size], answer[:n])
		}
		used += 2 + size
		if n > 0 {
			local++
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
		if t := c.transfer.table; t != nil {
			c.transfer.table = nil
			if c.write(out) != nil || c.transferZone(t, c.transfer.zone) != nil {
				return nil, used, false
			}
			out = out[:0]
		}
	}
	return out, used, true
}

// wait lets the last query wait for an upstream.
func (c *tcpConn) wait() {
	c.slots <- struct{}{}
	c.pending.Add(1)
	c.submit(func(answer []byte) {
		if tap := c.proxy.tap; tap != nil {
			tap.put(c.server.tapProto(), c.peer, c.local, tapResponse, answer)
		}
		// Whoever brings the answer must not wait for this client to read.
		go func() {
			defer c.pending.Done()
			defer func() { <-c.slots }()
			frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
			if c.write(append(frame, answer...)) != nil {
				c.stats.unsent.Add(1)
			}
		}()
	})
}

func (c *tcpConn) write(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.conn.Write(data); err != nil {
		c.conn.Close() // a frame cut in the middle: what follows would be misread
		return fmt.Errorf("send answers: %w", err)
	}
	return nil
}
