package edge

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/weirproject/weir/api"
)

// reset judges a frame that must be a reset of f's connection and returns its
// sequence, acknowledgement and flags.
func reset(t *testing.T, f frame, raw []byte) (sequence, acknowledge uint32, flags byte) {
	t.Helper()
	at := 14 + 4*len(f.tags)
	if [6]byte(raw) != clientMAC || [6]byte(raw[6:]) != edgeMAC {
		t.Errorf("ethernet % x", raw[:14])
	}
	header := 20
	if f.src.Addr().Is6() {
		header = 40
	}
	segment := raw[at+header:]
	if len(segment) != 20 {
		t.Fatalf("the reset has %d bytes", len(segment))
	}
	if header == 20 && sum(raw[at:at+20], 0) != 0xffff {
		t.Errorf("IPv4 checksum of % x", raw[at:at+20])
	}
	if s := sum(segment, pseudo(f.src.Addr(), f.dst.Addr(), tcp, 20)); s != 0xffff {
		t.Errorf("TCP checksum of % x", segment)
	}
	if !bytes.Equal(raw[at+header-len(f.src.Addr().AsSlice()):at+header], f.src.Addr().AsSlice()) {
		t.Errorf("not to the client: % x", raw[at:at+header])
	}
	if binary.BigEndian.Uint16(segment) != f.dst.Port() || binary.BigEndian.Uint16(segment[2:]) != f.src.Port() {
		t.Errorf("ports % x", segment[:4])
	}
	return binary.BigEndian.Uint32(segment[4:]), binary.BigEndian.Uint32(segment[8:]), segment[13]
}

func TestAPortThatNobodyServesIsRefused(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web/tcp/6", api.TCP, "[fd77::1]:80")))
	v4, v6 := addr("203.0.113.9:4000"), addr("[2001:db8::9]:4000")
	for name, c := range map[string]struct {
		frame                 frame
		sequence, acknowledge uint32
		flags                 byte
	}{
		"syn":               {frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, flags: syn}, 0, 1001, rst | ack},
		"ack":               {frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, payload: []byte("hello")}, 2000, 0, rst},
		"options":           {frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, flags: syn, options: []byte{1, 1, 1, 0}}, 0, 1001, rst | ack},
		"vlan":              {frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, flags: syn, tags: []uint16{3}}, 0, 1001, rst | ack},
		"syn with data":     {frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, flags: syn, payload: []byte("abc")}, 0, 1004, rst | ack},
		"syn to 6":          {frame{src: v6, dst: addr("[fd77::1]:22"), protocol: tcp, flags: syn}, 0, 1001, rst | ack},
		"no backend":        {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp, flags: syn}, 0, 1001, rst | ack},
		"no backend, later": {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp, flags: ack | fin}, 2000, 0, rst},
	} {
		t.Run(name, func(t *testing.T) {
			eachHook(t, func(t *testing.T, h hook) {
				if len(c.frame.tags) > 0 && h.loop == redirect {
					t.Skip("at TCX the tag is no part of the frame")
				}
				verdict, out := h.run(t, e, c.frame.ethernet())
				if verdict != h.loop {
					t.Fatalf("verdict %s; %v", verdict, reasons(t, e))
				}
				if s, a, f := reset(t, c.frame, out); s != c.sequence || a != c.acknowledge || f != c.flags {
					t.Errorf("sequence %d, acknowledge %d, flags %#x", s, a, f)
				}
			})
		})
	}
	eachHook(t, func(t *testing.T, h hook) {
		f := frame{src: v4, dst: addr("198.18.0.1:22"), protocol: tcp, flags: rst}
		if verdict, _ := h.run(t, e, f.ethernet()); verdict != drop {
			t.Errorf("a reset was answered: %s", verdict)
		}
	})
}

// icmpError judges a frame that must be an ICMP error about f and returns its type
// and code and the second word of its header.
func icmpError(t *testing.T, f frame, raw []byte) (kind, code byte, rest uint32) {
	t.Helper()
	at := 14 + 4*len(f.tags)
	header, start := 20, uint32(0)
	if f.src.Addr().Is6() {
		header = 40
		start = pseudo(f.src.Addr(), f.dst.Addr(), icmp6, len(raw)-at-40)
	} else if sum(raw[at:at+20], 0) != 0xffff {
		t.Errorf("IPv4 checksum of % x", raw[at:at+20])
	}
	if [6]byte(raw) != clientMAC || !bytes.Equal(raw[at+header-len(f.src.Addr().AsSlice()):at+header], f.src.Addr().AsSlice()) {
		t.Errorf("not to the client: % x", raw[:at+header])
	}
	message := raw[at+header:]
	if s := sum(message, start); s != 0xffff {
		t.Errorf("ICMP checksum %04x of % x", s, message)
	}
	if quote := message[8:]; !bytes.HasPrefix(f.ip(), quote) || len(quote) < header+8 {
		t.Errorf("it quotes % x", quote)
	}
	return message[0], message[1], binary.BigEndian.Uint32(message[4:])
}

func TestDatagramsThatNobodyServesAreRefused(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web/udp/6", api.UDP, "[fd77::1]:80")))
	for name, c := range map[string]struct {
		frame      frame
		kind, code byte
	}{
		"udp4":       {frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, payload: make([]byte, 100)}, 3, 3},
		"options":    {frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, options: []byte{1, 1, 1, 0}}, 3, 3},
		"vlan":       {frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, tags: []uint16{3, 4}}, 3, 3},
		"udp6":       {frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:81"), protocol: udp}, 1, 4},
		"no backend": {frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp, payload: make([]byte, 999)}, 1, 4},
	} {
		t.Run(name, func(t *testing.T) {
			eachHook(t, func(t *testing.T, h hook) {
				if len(c.frame.tags) > 0 && h.loop == redirect {
					t.Skip("at TCX the tag is no part of the frame")
				}
				verdict, out := h.run(t, e, c.frame.ethernet())
				if verdict != h.loop {
					t.Fatalf("verdict %s; %v", verdict, reasons(t, e))
				}
				if kind, code, _ := icmpError(t, c.frame, out); kind != c.kind || code != c.code {
					t.Errorf("type %d, code %d", kind, code)
				}
			})
		})
	}
}

func TestAPacketTooBigForTheTunnelIsAnsweredWithTheMTU(t *testing.T) {
	e := newEdge(t)
	ipip := service("ipip/tcp/4", api.TCP, "198.18.0.2:80", "10.80.0.11:8080")
	ipip.Deliver = api.IPIP
	set(t, e, table(ipip, service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web/tcp/6", api.TCP, "[fd77::1]:80", "[fd00::11]:8080")))
	v4, v6 := addr("203.0.113.9:4000"), addr("[2001:db8::9]:4000")
	const df = 0x4000
	for name, c := range map[string]struct {
		frame   frame
		size    int
		mtu     uint32
		verdict string
	}{
		"gue4 fits":  {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, fragment: df}, 1460, 0, ""},
		"gue4":       {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, fragment: df}, 1461, 1460, ""},
		"no df":      {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp}, 1461, 0, drop},
		"ipip4 fits": {frame{src: v4, dst: addr("198.18.0.2:80"), protocol: tcp, fragment: df}, 1480, 0, ""},
		"ipip4":      {frame{src: v4, dst: addr("198.18.0.2:80"), protocol: tcp, fragment: df}, 1500, 1480, ""},
		"gue6 fits":  {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp}, 1428, 0, ""},
		"gue6":       {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp}, 1429, 1428, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eachHook(t, func(t *testing.T, h hook) {
				f := c.frame
				f.payload = make([]byte, c.size-len(f.ip()))
				verdict, out := h.run(t, e, f.ethernet())
				want := c.verdict
				if want == "" {
					want = h.loop
				}
				switch {
				case verdict != want:
					t.Fatalf("verdict %s, want %s", verdict, want)
				case c.mtu > 0:
					if kind, _, mtu := icmpError(t, f, out); mtu != c.mtu || kind != map[bool]byte{true: 3, false: 2}[f.src.Addr().Is4()] {
						t.Errorf("type %d, MTU %d", kind, mtu)
					}
				case verdict != drop:
					openTunnel(t, out)
				}
			})
		})
	}
}

func TestEchoIsAnswered(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web/tcp/6", api.TCP, "[fd77::1]:80")))
	eachHook(t, func(t *testing.T, h hook) {
		for _, f := range []frame{
			{src: addr("203.0.113.9:0"), dst: addr("198.18.0.1:0"), protocol: icmp4, icmpType: 8, payload: []byte("are you there?")},
			{src: addr("[2001:db8::9]:0"), dst: addr("[fd77::1]:0"), protocol: icmp6, icmpType: 128, payload: []byte("are you there")},
		} {
			verdict, out := h.run(t, e, f.ethernet())
			want := f
			want.src, want.dst, want.icmpType = f.dst, f.src, map[uint8]uint8{8: 0, 128: 129}[f.icmpType]
			if verdict != h.loop || !bytes.Equal(out[14:], want.ip()) || [6]byte(out) != clientMAC {
				t.Errorf("%s\n% x, want\n% x", verdict, out[14:], want.ip())
			}
		}
	})
}

func TestOtherICMPToAVirtualAddress(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), service("web/tcp/6", api.TCP, "[fd77::1]:80")))
	v4, v6 := netip.AddrPortFrom(addr("203.0.113.9:0").Addr(), 0), addr("[2001:db8::9]:0")
	eachHook(t, func(t *testing.T, h hook) {
		for name, c := range map[string]struct {
			frame frame
			want  string
		}{
			"redirect":  {frame{src: v4, dst: addr("198.18.0.1:0"), protocol: icmp4, icmpType: 5, payload: make([]byte, 28)}, drop},
			"timestamp": {frame{src: v4, dst: addr("198.18.0.1:0"), protocol: icmp4, icmpType: 13, payload: make([]byte, 12)}, drop},
			"neighbour": {frame{src: v6, dst: addr("[fd77::1]:0"), protocol: icmp6, icmpType: 135, payload: make([]byte, 24)}, pass},
			"node info": {frame{src: v6, dst: addr("[fd77::1]:0"), protocol: icmp6, icmpType: 139, payload: make([]byte, 24)}, drop},
			"esp":       {frame{src: v4, dst: addr("198.18.0.1:0"), protocol: 50, payload: make([]byte, 24)}, drop},
			"no flow":   {frame{src: v4, dst: addr("198.18.0.1:0"), protocol: icmp4, icmpType: 3, payload: make([]byte, 28)}, drop},
		} {
			if verdict, _ := h.run(t, e, c.frame.ethernet()); verdict != c.want {
				t.Errorf("%s: %s, want %s", name, verdict, c.want)
			}
		}
	})
}
