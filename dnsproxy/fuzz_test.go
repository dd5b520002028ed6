package dnsproxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
)

// A connection's bytes come in any pieces.
func FuzzFrames(f *testing.F) {
	var all []byte
	for _, seed := range seeds() {
		frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(seed))), seed...)
		f.Add(frame)
		all = append(all, frame...)
	}
	f.Add(all)
	p := proxyOf(f, compile(f, large(), options()))
	server := newTCPServer(p, "tcp")
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &tcpConn{worker: worker{proxy: p, from: client{tcp: true, peer: netip.MustParseAddr("127.0.0.1")}, stats: server.stats}, server: server, slots: make(chan struct{}, maxPending)}
		c.conn, _ = net.Pipe()
		out, used, _ := c.frames(data, nil)
		if used > len(data) {
			t.Fatalf("%d bytes of %d used", used, len(data))
		}
		for len(out) > 0 {
			size := int(binary.BigEndian.Uint16(out))
			unpack(t, out[2:2+size])
			out = out[2+size:]
		}
		if p.metrics.panics.Load() > 0 {
			t.Fatal("panic")
		}
	})
}

// What is read and written again is the same.
func FuzzParseUpstream(f *testing.F) {
	for _, seed := range []string{"192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:53", "tcp://192.0.2.1", "tls://192.0.2.1:853#dns.example", "https://192.0.2.1/dns-query#dns.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUpstream(text)
		if err != nil {
			return
		}
		if again, err := ParseUpstream(u.String()); err != nil || again != u {
			t.Fatalf("%q is read as %+v, and %q as %+v, %v", text, u, u.String(), again, err)
		}
	})
}
