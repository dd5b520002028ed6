package deliver

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// edit changes a copy of the frame.
func edit(f []byte, change func(f []byte)) []byte {
	c := bytes.Clone(f)
	change(c)
	return c
}

// resum puts the checksum of the outer IPv4 header right again.
func resum(f []byte) {
	h := f[ethernet : ethernet+20]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum(h)))
}

func TestWhatIsNotRightIsDroppedForItsReason(t *testing.T) {
	syn4 := packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip()
	syn6 := packet{from: cli6, to: vip6, protocol: tcp, flags: syn}.ip()
	good4, good6 := families[0].wrap(syn4), families[1].wrap(syn6)
	const udp4, gue4, in4 = ethernet + 20, ethernet + 28, ethernet + 40
	const gue6, in6 = ethernet + 48, ethernet + 72
	at := func(offset int, value ...byte) func(f []byte) { return func(f []byte) { copy(f[offset:], value) } }
	stranger4, stranger6 := netip.MustParseAddr("10.80.0.66"), netip.MustParseAddr("fd00:80::66")
	for _, c := range []struct {
		name, reason string
		in           []byte
	}{
		{"from no edge", "not-from-an-edge", frame(gue(stranger4, node4, back4, syn4))},
		{"from no edge, v6", "not-from-an-edge", frame(gue(stranger6, node6, back6, syn6))},
		{"from no edge, and broken", "not-from-an-edge", frame(tunnel(stranger4, node4, nil))},
		{"outer checksum", "outer-headers", edit(good4, at(ethernet+10, 0x12))},
		{"outer length beyond the frame", "outer-headers", edit(good4, func(f []byte) { f[ethernet+3]++; resum(f) })},
		{"outer length beyond the frame, v6", "outer-headers", edit(good6, func(f []byte) { f[ethernet+5]++ })},
		{"udp length too small", "outer-headers", edit(good4, func(f []byte) { f[udp4+5]-- })},
		{"udp length too large", "outer-headers", edit(good4, func(f []byte) { f[udp4+5]++ })},
		{"udp length zero", "outer-headers", edit(good4, at(udp4+4, 0, 0))},
		{"congestion that the client does not understand", "congestion-on-the-way", edit(good4, func(f []byte) { f[ethernet+1] = 3; resum(f) })},
		{"congestion that the client does not understand, v6", "congestion-on-the-way", edit(good6, at(ethernet+1, 0x30))},
		{"fragment", "tunnel-fragmented", edit(good4, func(f []byte) { f[ethernet+6] = 0x20; resum(f) })},
		{"empty tunnel", "gue-header", frame(tunnel(edge4, node4, nil))},
		{"gue header cut short", "gue-header", frame(tunnel(edge4, node4, []byte{2, 4, 0, 0, 0, 80, 0}))},
		{"gue address cut short", "gue-header", frame(tunnel(edge4, node4, []byte{2, 4, 0, 0, 0, 80, 0, 0, 10, 80, 0}))},
		{"gue address cut short, v6", "gue-header", frame(tunnel(edge6, node6, []byte{5, 41, 0, 0, 0, 80, 0, 0, 10, 80, 0}))},
		{"gue variant 1", "gue-header", edit(good4, at(gue4, 0x42))},
		{"gue control", "gue-header", edit(good4, at(gue4, 0x22))},
		{"gue length", "gue-header", edit(good4, at(gue4, 3))},
		{"gue length of the other family", "gue-header", edit(good4, at(gue4, 5))},
		{"gue protocol", "gue-header", edit(good4, at(gue4+1, 41))},
		{"gue protocol, v6", "gue-header", edit(good6, at(gue6+1, 4))},
		{"gue flags", "gue-header", edit(good4, at(gue4+2, 0x80))},
		{"gue padding", "gue-header", edit(good4, at(gue4+7, 1))},
		{"gue port 0", "gue-header", edit(good4, at(gue4+4, 0, 0))},
		{"nothing inside", "client-packet", frame(gue(edge4, node4, back4, nil))},
		{"inner version", "client-packet", edit(good4, at(in4, 0x65))},
		{"inner version, v6", "client-packet", edit(good6, at(in6, 0x40))},
		{"inner header length", "client-packet", edit(good4, at(in4, 0x44))},
		{"inner header beyond the packet", "client-packet", edit(good4, at(in4, 0x4f))},
		{"inner length beyond the tunnel", "client-packet", edit(good4, func(f []byte) { f[in4+3]++ })},
		{"inner length beyond the tunnel, v6", "client-packet", edit(good6, func(f []byte) { f[in6+5]++ })},
		{"inner length within the header", "client-packet", edit(good4, at(in4+2, 0, 19))},
		{"tcp cut short", "client-packet", frame(gue(edge4, node4, back4, ip4(cli4.Addr(), vip4.Addr(), tcp, 0, 0, nil, make([]byte, 19))))},
		{"udp cut short", "client-packet", frame(gue(edge4, node4, back4, ip4(cli4.Addr(), vip4.Addr(), udp, 0, 0, nil, make([]byte, 7))))},
		{"extension header cut short", "client-packet", frame(gue(edge6, node6, back6, ip6(cli6.Addr(), vip6.Addr(), 60, []byte{6, 0, 0})))},
		{"sctp", "protocol", edit(good4, at(in4+9, 132))},
		{"ping", "protocol", frame(gue(edge4, node4, back4, icmpOf(cli4.Addr(), vip4.Addr(), 8, 0, make([]byte, 20))))},
		{"ping, v6", "protocol", frame(gue(edge6, node6, back6, icmpOf(cli6.Addr(), vip6.Addr(), 128, 0, make([]byte, 20))))},
		{"too many extension headers", "protocol", frame(gue(edge6, node6, back6, ip6(cli6.Addr(), vip6.Addr(), 60, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 6))))},
		{"another port of the VIP", "unknown-backend", frame(gue(edge4, node4, back4, packet{from: cli4, to: ap("198.18.0.10:81"), protocol: tcp, flags: syn}.ip()))},
		{"the node's own address", "unknown-backend", frame(gue(edge4, node4, back4, packet{from: cli4, to: ap("10.80.0.11:22"), protocol: tcp, flags: syn}.ip()))},
		{"another port of the node", "unknown-backend", frame(gue(edge4, node4, ap("10.80.0.11:22"), syn4))},
		{"another address", "unknown-backend", frame(gue(edge4, node4, ap("10.80.0.12:8080"), syn4))},
		{"another address, v6", "unknown-backend", frame(gue(edge6, node6, ap("[fd00:80::12]:8080"), syn6))},
		{"later fragment of nothing", "fragment-without-first", frame(gue(edge4, node4, back4, packet{from: cli4, to: vip4, protocol: udp, later: true, id: 5, payload: bytesOf(64)}.ip()))},
		{"icmp error with nothing in it", "client-packet", frame(gue(edge4, node4, back4, icmp(cli4.Addr(), vip4.Addr(), nil)))},
		{"icmp error about somebody else", "client-packet", frame(gue(edge4, node4, back4, icmp(cli4.Addr(), vip4.Addr(), packet{from: back4, to: cli4, protocol: tcp}.ip())))},
		{"icmp error about another port", "unknown-backend", frame(gue(edge4, node4, back4, icmp(cli4.Addr(), vip4.Addr(), packet{from: ap("198.18.0.10:81"), to: cli4, protocol: tcp}.ip())))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sharedDeliverer(t)
			before := counters(t, d)
			word, out := ingress(t, d, c.in)
			expect(t, "ingress", word, out, tcxDrop, nil)
			after := counters(t, d)
			for reason := range after.Dropped {
				want := uint64(0)
				if reason == c.reason {
					want = 1
				}
				if got := after.Dropped[reason] - before.Dropped[reason]; got != want {
					t.Errorf("%d packets were counted for %s, want %d", got, reason, want)
				}
			}
			if after.Delivered != before.Delivered {
				t.Error("it was counted as delivered")
			}
		})
	}
}

// TestOthersPassUntouched: both programs see all of a node's traffic.
func TestOthersPassUntouched(t *testing.T) {
	d := sharedDeliverer(t)
	inside := packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip()
	good := families[0].wrap(inside)
	for name, in := range map[string][]byte{
		"tcp":                      packet{from: cli4, to: back4, protocol: tcp, flags: ack}.frame(),
		"a new connection":         packet{from: cli4, to: ap("10.80.0.11:22"), protocol: tcp, flags: syn}.frame(),
		"udp":                      packet{from: cli4, to: ap("10.80.0.11:53"), protocol: udp, payload: bytesOf(30)}.frame(),
		"udp v6":                   packet{from: cli6, to: back6, protocol: udp, payload: bytesOf(30)}.frame(),
		"a tunnel to another node": frame(gue(edge4, netip.MustParseAddr("10.80.0.12"), back4, inside)),
		"another port":             edit(good, func(f []byte) { f[ethernet+23]++ }),
		"outer options":            frame(ip4(edge4, node4, udp, 0, 0, []byte{1, 1, 1, 1}, good[ethernet+20:])),
		"a later fragment":         edit(good, func(f []byte) { f[ethernet+7] = 9; resum(f) }),
		"arp":                      append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6}, make([]byte, 46)...),
		"ping":                     frame(icmpOf(cli4.Addr(), back4.Addr(), 8, 0, bytesOf(40))),
		"an icmp error":            frame(icmp(cli4.Addr(), back4.Addr(), packet{from: back4, to: cli4, protocol: udp}.ip())),
		"sctp":                     frame(ip4(cli4.Addr(), back4.Addr(), 132, 0, 0, nil, bytesOf(40))),
		"a cut header":             frame(packet{from: cli4, to: back4, protocol: tcp}.ip()[:30]),
		"an unfinished extension":  frame(ip6(cli6.Addr(), back6.Addr(), 60, []byte{6, 9, 0})),
	} {
		word, out := ingress(t, d, in)
		expect(t, name+" at ingress", word, out, tcxNext, in)
		word, out = egress(t, d, in)
		expect(t, name+" at egress", word, out, tcxNext, in)
	}
}

// A packet shorter than its Ethernet frame is padded, and stays so.
func TestPaddingOfSmallFramesIsNoFault(t *testing.T) {
	d := sharedDeliverer(t)
	in := append(packet{from: cli4, to: vip4, protocol: udp, payload: []byte("x")}.ip(), make([]byte, 17)...)
	want := append(packet{from: cli4, to: back4, protocol: udp, payload: []byte("x")}.frame(), make([]byte, 17)...)
	word, out := ingress(t, d, families[0].wrap(in))
	expect(t, "delivered", word, out, tcxNext, want)
}

func TestABackendOnTheEdgeNodeItselfIsReachedByItsOwnTunnel(t *testing.T) {
	d := open(t, newOptions(t))
	own := table()
	own.Edges = append(own.Edges, node4)
	set(t, d, own)
	word, out := ingress(t, d, frame(gue(node4, node4, back4, packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.ip())))
	expect(t, "delivered", word, out, tcxNext, packet{from: cli4, to: back4, protocol: tcp, flags: syn}.frame())
}

func TestErrorsAboutAnswersReachTheBackend(t *testing.T) {
	for _, f := range families {
		for _, protocol := range []uint8{tcp, udp} {
			for _, full := range []bool{true, false} {
				d := sharedDeliverer(t)
				sent := packet{from: f.vip, to: f.client, protocol: protocol, flags: ack, payload: bytesOf(40)}.ip()
				known := packet{from: f.back, to: f.client, protocol: protocol, flags: ack, payload: bytesOf(40)}.ip()
				head := f.inner
				copyCheck(known, sent, head, protocol)
				if !full {
					sent, known = sent[:head+8], known[:head+8]
				}
				router := netip.MustParseAddr("203.0.113.1")
				if f.client.Addr().Is6() {
					router = netip.MustParseAddr("2001:db8::1")
				}
				word, out := ingress(t, d, f.wrap(icmp(router, f.vip.Addr(), sent)))
				expect(t, f.name, word, out, tcxNext, frame(icmp(router, f.back.Addr(), known)))
			}
		}
	}
}

// copyCheck: the checksum inside a quoted packet is not rewritten.
func copyCheck(to, from []byte, l4 int, protocol uint8) {
	at := l4 + 6
	if protocol == unix.IPPROTO_TCP {
		at = l4 + 16
	}
	copy(to[at:at+2], from[at:at+2])
}

func TestErrorsOfTheNodeNameTheVIP(t *testing.T) {
	for _, f := range families {
		for _, protocol := range []uint8{tcp, udp} {
			d := sharedDeliverer(t)
			p := packet{from: f.client, to: f.vip, protocol: protocol, flags: ack, payload: bytesOf(40)}
			ingress(t, d, f.wrap(p.ip()))
			known := p.ip()
			p.to = f.back
			got := p.ip()
			copyCheck(known, got, f.inner, protocol)
			word, out := egress(t, d, frame(icmp(f.back.Addr(), f.client.Addr(), got)))
			expect(t, f.name+" by the backend", word, out, tcxNext, frame(icmp(f.vip.Addr(), f.client.Addr(), known)))
			router := f.node.Next()
			if f.node.Is4() != f.client.Addr().Is4() {
				continue
			}
			word, out = egress(t, d, frame(icmp(router, f.client.Addr(), got)))
			expect(t, f.name+" by a router", word, out, tcxNext, frame(icmp(router, f.client.Addr(), known)))
		}
	}
}

func TestLaterFragmentsFollowTheFirst(t *testing.T) {
	for _, f := range families {
		d := sharedDeliverer(t)
		first := packet{from: f.client, to: f.vip, protocol: udp, payload: bytesOf(800), more: true, id: 77}
		later := packet{from: f.client, to: f.vip, protocol: udp, payload: bytesOf(100), later: true, id: 77}
		in, inLater := f.wrap(first.ip()), f.wrap(later.ip())
		first.to, later.to = f.back, f.back
		word, out := ingress(t, d, in)
		expect(t, f.name+" first", word, out, tcxNext, first.frame())
		word, out = ingress(t, d, inLater)
		expect(t, f.name+" later", word, out, tcxNext, later.frame())

		first.from, first.to, later.from, later.to = f.back, f.client, f.back, f.client
		out1, out2 := first.frame(), later.frame()
		first.from, later.from = f.vip, f.vip
		word, out = egress(t, d, out1)
		expect(t, f.name+" first answer", word, out, tcxNext, first.frame())
		word, out = egress(t, d, out2)
		expect(t, f.name+" later answer", word, out, tcxNext, later.frame())
	}
}

func TestAClientThatTurnsToTheBackendItselfIsAnsweredByIt(t *testing.T) {
	for _, protocol := range []uint8{tcp, udp} {
		d := sharedDeliverer(t)
		ingress(t, d, families[0].wrap(packet{from: cli4, to: vip4, protocol: protocol, flags: syn}.ip()))
		// What is no beginning changes nothing.
		if protocol == tcp {
			ingress(t, d, packet{from: cli4, to: back4, protocol: tcp, flags: ack}.frame())
		}
		answer := packet{from: back4, to: cli4, protocol: protocol, flags: ack}
		_, out := egress(t, d, answer.frame())
		expect(t, "before", tcxNext, out, tcxNext, packet{from: vip4, to: cli4, protocol: protocol, flags: ack}.frame())
		in := packet{from: cli4, to: back4, protocol: protocol, flags: syn}.frame()
		word, out := ingress(t, d, in)
		expect(t, "direct", word, out, tcxNext, in)
		word, out = egress(t, d, answer.frame())
		expect(t, "answer", word, out, tcxNext, answer.frame())
	}
}

func TestAClientOfTwoVIPsHearsTheOneItSpokeToLast(t *testing.T) {
	d := open(t, newOptions(t))
	two := table()
	other := ap("198.18.0.20:80")
	two.Services = append(two.Services, service("other/tcp/4", "tcp", other, back4, node4))
	set(t, d, two)
	for _, vip := range []netip.AddrPort{vip4, other, vip4} {
		ingress(t, d, families[0].wrap(packet{from: cli4, to: vip, protocol: tcp, flags: syn}.ip()))
		_, out := egress(t, d, packet{from: back4, to: cli4, protocol: tcp, flags: syn | ack}.frame())
		expect(t, vip.String(), tcxNext, out, tcxNext, packet{from: vip, to: cli4, protocol: tcp, flags: syn | ack}.frame())
	}
}
