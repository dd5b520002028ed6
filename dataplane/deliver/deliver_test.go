package deliver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
)

// family is one combination of a client's packet and the tunnel around it.
type family struct {
	name               string
	client, vip, back  netip.AddrPort
	edge, node         netip.Addr
	outer, inner, room int // bytes
}

var families = []family{
	{"4in4", cli4, vip4, back4, edge4, node4, 20 + 8 + 8 + 4, 20, 1500 - 20 - 8 - 8 - 4},
	{"6in6", cli6, vip6, back6, edge6, node6, 40 + 8 + 8 + 16, 40, 1500 - 40 - 8 - 8 - 16},
	{"4in6", cli4, vip4, back4, edge6, node6, 40 + 8 + 8 + 4, 20, 1500 - 40 - 8 - 8 - 4},
	{"6in4", cli6, vip6, back6, edge4, node4, 20 + 8 + 8 + 16, 40, 1500 - 20 - 8 - 8 - 16},
}

func (f family) wrap(inside []byte) []byte { return frame(gue(f.edge, f.node, f.back, inside)) }

// bytesOf makes a payload whose sum is not zero.
func bytesOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 3)
	}
	return b
}

func expect(t *testing.T, what string, word uint32, out []byte, wantWord uint32, want []byte) {
	t.Helper()
	if word != wantWord {
		t.Errorf("%s: got the word %d, want %d", what, int32(word), int32(wantWord))
	}
	if want != nil && !bytes.Equal(out, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, out, want)
	}
}

func TestWhatATunnelCarriesGoesToTheBackendAndItsAnswersComeFromTheVIP(t *testing.T) {
	for _, f := range families {
		for _, c := range []struct {
			name string
			make func(from, to netip.AddrPort) packet
		}{
			{"tcp", func(from, to netip.AddrPort) packet {
				return packet{from: from, to: to, protocol: tcp, flags: ack, payload: bytesOf(101)}
			}},
			{"tcp with options", func(from, to netip.AddrPort) packet {
				return packet{from: from, to: to, protocol: tcp, flags: ack, options: []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}}
			}},
			{"udp", func(from, to netip.AddrPort) packet {
				return packet{from: from, to: to, protocol: udp, payload: bytesOf(64)}
			}},
			{"udp empty", func(from, to netip.AddrPort) packet { return packet{from: from, to: to, protocol: udp} }},
			{"large", func(from, to netip.AddrPort) packet {
				return packet{from: from, to: to, protocol: tcp, flags: ack, payload: bytesOf(1400)}
			}},
		} {
			t.Run(f.name+" "+c.name, func(t *testing.T) {
				d := sharedDeliverer(t)
				before := counters(t, d)
				word, out := ingress(t, d, f.wrap(c.make(f.client, f.vip).ip()))
				expect(t, "delivered", word, out, tcxNext, c.make(f.client, f.back).frame())
				word, out = egress(t, d, c.make(f.back, f.client).frame())
				expect(t, "answered", word, out, tcxNext, c.make(f.vip, f.client).frame())
				if c := counters(t, d); c.Delivered != before.Delivered+1 || c.Answered != before.Answered+1 {
					t.Errorf("got %+v after %+v, want 1 more delivered and answered", c, before)
				}
			})
		}
	}
}

func TestUDPWithoutChecksumStaysWithout(t *testing.T) {
	d := sharedDeliverer(t)
	in := packet{from: cli4, to: vip4, protocol: udp, payload: bytesOf(9), noSum: true}
	want := packet{from: cli4, to: back4, protocol: udp, payload: bytesOf(9), noSum: true}
	word, out := ingress(t, d, families[0].wrap(in.ip()))
	expect(t, "delivered", word, out, tcxNext, want.frame())
	in.from, in.to = back4, cli4
	want.from, want.to = vip4, cli4
	word, out = egress(t, d, in.frame())
	expect(t, "answered", word, out, tcxNext, want.frame())
}

// A checksum that comes out as zero is sent as ffff: with two bytes of payload
// every sum occurs.
func TestUDPChecksumNeverBecomesZero(t *testing.T) {
	d := sharedDeliverer(t)
	found := 0
	for n := 0; n < 1<<16; n++ {
		payload := []byte{byte(n >> 8), byte(n)}
		want := packet{from: cli4, to: back4, protocol: udp, payload: payload}
		if w := want.transport(); w[6] != 0xff || w[7] != 0xff {
			continue
		}
		found++
		word, out := ingress(t, d, families[0].wrap(packet{from: cli4, to: vip4, protocol: udp, payload: payload}.ip()))
		expect(t, fmt.Sprint(n), word, out, tcxNext, want.frame())
	}
	if found == 0 {
		t.Error("no payload has the checksum ffff")
	}
}

func TestHeadersWithOptionsAreUnderstood(t *testing.T) {
	for _, f := range families[:2] {
		d := sharedDeliverer(t)
		// Router alert; destination options with padding.
		options := []byte{0x94, 4, 0, 0}
		if f.client.Addr().Is6() {
			options = []byte{0, 0, 1, 4, 0, 0, 0, 0}
		}
		p := packet{from: f.client, to: f.vip, protocol: tcp, flags: ack, payload: bytesOf(10), padded: options}
		in := f.wrap(p.ip())
		p.to = f.back
		word, out := ingress(t, d, in)
		expect(t, f.name, word, out, tcxNext, p.frame())
	}
}

func TestTheMSSOfSYNACKsFitsTheTunnel(t *testing.T) {
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	for _, f := range families {
		fits := f.room - f.inner - 20
		for _, c := range []struct {
			name     string
			in, want []byte
			flags    uint8
		}{
			{"lowered", append(mss(1460), 1, 3, 3, 7), append(mss(fits), 1, 3, 3, 7), syn | ack},
			{"small enough", mss(fits), mss(fits), syn | ack},
			{"one too large", mss(fits + 1), mss(fits), syn | ack},
			{"behind others", append([]byte{1, 1, 4, 2}, mss(9000)...), append([]byte{1, 1, 4, 2}, mss(fits)...), syn | ack},
			{"at an odd place", append(append([]byte{1}, mss(1460)...), 3, 3, 7), append(append([]byte{1}, mss(fits)...), 3, 3, 7), syn | ack},
			{"no option", nil, nil, syn | ack},
			{"end of options", append([]byte{0, 0, 0, 0}, mss(1460)...), append([]byte{0, 0, 0, 0}, mss(1460)...), syn | ack},
			{"broken option", append([]byte{8, 0, 0, 0}, mss(1460)...), append([]byte{8, 0, 0, 0}, mss(1460)...), syn | ack},
			{"only of a SYN", mss(1460), mss(1460), ack},
		} {
			t.Run(f.name+" "+c.name, func(t *testing.T) {
				d := sharedDeliverer(t)
				ingress(t, d, f.wrap(packet{from: f.client, to: f.vip, protocol: tcp, flags: syn, options: mss(1460)}.ip()))
				in := packet{from: f.back, to: f.client, protocol: tcp, flags: c.flags, options: c.in}
				want := packet{from: f.vip, to: f.client, protocol: tcp, flags: c.flags, options: c.want}
				word, out := egress(t, d, in.frame())
				expect(t, "answered", word, out, tcxNext, want.frame())
			})
		}
	}
}

// The client's own MSS says what it can receive, which no tunnel carries.
func TestTheMSSOfTheClientsSYNStays(t *testing.T) {
	d := sharedDeliverer(t)
	p := packet{from: cli4, to: vip4, protocol: tcp, flags: syn, options: []byte{2, 4, 5, 180}}
	in := families[0].wrap(p.ip())
	p.to = back4
	word, out := ingress(t, d, in)
	expect(t, "delivered", word, out, tcxNext, p.frame())
}

// RFC 6040: what the network says about congestion to the tunnel is for the flow.
func TestCongestionMarksOfTheTunnelReachTheBackend(t *testing.T) {
	d := sharedDeliverer(t)
	for _, f := range families {
		mark := func(ip []byte, ecn byte) []byte {
			if ip[0]>>4 == 6 {
				ip[1] = ecn << 4
				return ip
			}
			ip[1] = ecn
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], ^uint16(sum(ip[:20])))
			return ip
		}
		for _, c := range []struct{ outer, inner, want byte }{{0, 0, 0}, {2, 2, 2}, {3, 2, 3}, {3, 1, 3}, {3, 3, 3}, {0, 3, 3}} {
			p := packet{from: f.client, to: f.vip, protocol: tcp, flags: ack}
			in := frame(mark(gue(f.edge, f.node, f.back, mark(p.ip(), c.inner)), c.outer))
			p.to = f.back
			word, out := ingress(t, d, in)
			expect(t, fmt.Sprint(f.name, c), word, out, tcxNext, frame(mark(p.ip(), c.want)))
		}
	}
}

// BIG TCP: a packet that its device will cut may be too large for the field.
func TestPacketsOfUntoldLengthAreAnswered(t *testing.T) {
	d := sharedDeliverer(t)
	untold := func(p packet) []byte {
		f := p.frame()
		if f[ethernet]>>4 == 6 {
			f[ethernet+4], f[ethernet+5] = 0, 0
			return f
		}
		f[ethernet+2], f[ethernet+3] = 0, 0
		resum(f)
		return f
	}
	for _, f := range families {
		ingress(t, d, f.wrap(packet{from: f.client, to: f.vip, protocol: tcp, flags: syn}.ip()))
		p := packet{from: f.back, to: f.client, protocol: tcp, flags: ack, payload: bytesOf(999)}
		in := untold(p)
		p.from = f.vip
		word, out := egress(t, d, in)
		expect(t, f.name, word, out, tcxNext, untold(p))
	}
}
