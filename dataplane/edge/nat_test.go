package edge

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// plain is what a frame without a tunnel says.
type plain struct {
	destination, source [6]byte
	tag                 uint16
	src, dst            netip.AddrPort
	ttl                 uint8
}

// openPlain takes a frame with TCP or UDP apart and judges its checksums.
func openPlain(t *testing.T, raw []byte) (p plain) {
	t.Helper()
	p.destination, p.source = [6]byte(raw), [6]byte(raw[6:])
	kind, rest := binary.BigEndian.Uint16(raw[12:]), raw[14:]
	if kind == 0x8100 {
		p.tag, kind, rest = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	var src, dst netip.Addr
	var protocol uint8
	if kind == 0x0800 {
		header := int(rest[0]&15) * 4
		if sum(rest[:header], 0) != 0xffff {
			t.Errorf("header's checksum is wrong: % x", rest[:header])
		}
		src, dst = netip.AddrFrom4([4]byte(rest[12:])), netip.AddrFrom4([4]byte(rest[16:]))
		p.ttl, protocol, rest = rest[8], rest[9], rest[header:]
	} else {
		src, dst = netip.AddrFrom16([16]byte(rest[8:])), netip.AddrFrom16([16]byte(rest[24:]))
		p.ttl, protocol, rest = rest[7], rest[6], rest[40:]
	}
	if sum(rest, pseudo(src, dst, protocol, len(rest))) != 0xffff {
		t.Errorf("checksum of protocol %d is wrong: % x", protocol, rest)
	}
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
	return p
}

// withTTL gives a frame without tags another TTL or hop limit.
func withTTL(raw []byte, ttl byte) []byte {
	if binary.BigEndian.Uint16(raw[12:]) == 0x86dd {
		raw[21] = ttl
		return raw
	}
	raw[22], raw[24], raw[25] = ttl, 0, 0
	binary.BigEndian.PutUint16(raw[24:], ^sum(raw[14:34], 0))
	return raw
}

// natTable has services of both families and protocols at 10.80.0.11 and fd00::11.
func natTable() dataplane.EdgeTable {
	return table(natService("t4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), natService("t6", api.TCP, "[fd77::1]:80", "[fd00::11]:8080"),
		natService("u4", api.UDP, "198.18.0.1:80", "10.80.0.11:8080"), natService("u6", api.UDP, "[fd77::1]:80", "[fd00::11]:8080"))
}

func TestNATSendsThereAndBack(t *testing.T) {
	e := newEdge(t)
	set(t, e, natTable())
	eachHook(t, func(t *testing.T, h hook) {
		for _, c := range []struct {
			name            string
			frame           frame
			backend, source string
		}{
			{"tcp4", frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn}, "10.80.0.11:8080", "10.80.0.31"},
			{"tcp6", frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: tcp, flags: syn}, "[fd00::11]:8080", "fd00::31"},
			{"udp4", frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, payload: []byte("odd")}, "10.80.0.11:8080", "10.80.0.31"},
			{"udp6", frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp, payload: []byte("q")}, "[fd00::11]:8080", "fd00::31"},
			{"options", frame{src: addr("203.0.113.9:4001"), dst: addr("198.18.0.1:80"), protocol: tcp, options: []byte{1, 1, 1, 0}}, "10.80.0.11:8080", "10.80.0.31"},
			{"tagged", frame{src: addr("203.0.113.9:4002"), dst: addr("198.18.0.1:80"), protocol: tcp, tags: []uint16{7}}, "10.80.0.11:8080", "10.80.0.31"},
		} {
			if len(c.frame.tags) > 0 && h.loop == redirect {
				continue // at TCX the tag is no part of the frame
			}
			verdict, out := h.run(t, e, c.frame.ethernet())
			if verdict != h.loop {
				t.Fatalf("%s: %s; reasons %v", c.name, verdict, reasons(t, e))
			}
			there := openPlain(t, out)
			if there.destination != hopMAC || there.source != edgeMAC || there.tag != 0 || there.ttl != 63 ||
				there.dst.String() != c.backend || there.src.Addr().String() != c.source || there.src.Port() < 50000 {
				t.Errorf("%s: sent on as %+v", c.name, there)
			}
			answer := c.frame
			answer.src, answer.dst, answer.flags, answer.tags, answer.options = there.dst, there.src, syn|ack, nil, nil
			verdict, out = h.run(t, e, answer.ethernet())
			if verdict != h.loop {
				t.Fatalf("%s: the answer: %s; reasons %v", c.name, verdict, reasons(t, e))
			}
			back := openPlain(t, out)
			want := plain{destination: clientMAC, source: edgeMAC, src: c.frame.dst, dst: c.frame.src, ttl: 63}
			if len(c.frame.tags) > 0 {
				want.tag = c.frame.tags[0]
			}
			if back != want {
				t.Errorf("%s: answered by %+v, want %+v", c.name, back, want)
			}
		}
	})
}

func TestWhatNATCannotSendIsDroppedAndCounted(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	low := testHop
	low.MTU = 600
	o.Hops = hops{hop: low, unknown: map[netip.Addr]bool{netip.MustParseAddr("10.80.0.99"): true}}
	e := open(t, o)
	wanted := natTable()
	wanted.Services = append([]*dataplane.EdgeService{natService("far", api.TCP, "198.18.0.9:80", "10.80.0.99:80")}, wanted.Services...)
	set(t, e, wanted)
	v4, v6 := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, payload: make([]byte, 16)},
		frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp}
	first, far, large, large6 := v4, v4, v4, v6
	first.fragment, first.id = 0x2000, 7
	far.dst, far.protocol = addr("198.18.0.9:80"), tcp
	large.payload, large.fragment, large6.payload = make([]byte, 700), 0x4000, make([]byte, 700)
	stray := frame{src: addr("10.80.0.11:8080"), dst: addr("10.80.0.31:51234"), protocol: tcp}
	low4 := frame{src: addr("10.80.0.11:8080"), dst: addr("10.80.0.31:80"), protocol: tcp}
	for _, c := range []struct {
		name    string
		raw     []byte
		verdict string // empty: sent back
		reason  string
		nat     string
	}{
		{"a fragment", first.ethernet(), drop, "nat_dropped", "fragment"},
		{"the last hop", withTTL(v4.ethernet(), 1), drop, "nat_dropped", ""},
		{"the last hop, IPv6", withTTL(v6.ethernet(), 1), drop, "nat_dropped", ""},
		{"no way", far.ethernet(), drop, "no_route", ""},
		{"too big", large.ethernet(), "", "too_big", ""},
		{"too big, IPv6", large6.ethernet(), "", "too_big", ""},
		{"nobody's answer", stray.ethernet(), pass, "", ""},
		{"to another port", low4.ethernet(), pass, "", ""},
	} {
		eachHook(t, func(t *testing.T, h hook) {
			before, counted := reasons(t, e), natCounts(t, e)
			verdict, _ := h.run(t, e, c.raw)
			want := c.verdict
			if want == "" {
				want = h.loop
			}
			if verdict != want {
				t.Errorf("%s: %s, want %s", c.name, verdict, want)
			}
			if c.reason != "" && reasons(t, e)[c.reason] != before[c.reason]+1 {
				t.Errorf("%s: reasons %v, before %v", c.name, reasons(t, e), before)
			}
			if c.nat != "" && natCounts(t, e)[c.nat] != counted[c.nat]+1 {
				t.Errorf("%s: nat %v, before %v", c.name, natCounts(t, e), counted)
			}
		})
	}
}

func natCounts(t *testing.T, e *Edge) map[string]uint64 {
	t.Helper()
	c, err := e.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.NAT
}

func TestABackendAtTheNodesOwnAddressIsLeftOut(t *testing.T) {
	e := newEdge(t)
	_, err := e.Set(context.Background(), table(natService("self", api.TCP, "198.18.0.1:80", "10.80.0.31:80")))
	var left *dataplane.LeftOut
	if !errors.As(err, &left) || !strings.Contains(err.Error(), "own address") {
		t.Errorf("got %v", err)
	}
}

func TestAServiceMayTurnToNATAndBack(t *testing.T) {
	e, h := newEdge(t), hooks["xdp"]
	f := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn}
	byTunnel, byNAT := service("web", api.TCP, "198.18.0.1:80", "10.80.0.11:8080"), natService("web", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")
	for range 2 {
		set(t, e, table(byTunnel))
		if got := backend(t, h, e, f); got != "10.80.0.11:8080" {
			t.Errorf("by tunnel: %s", got)
		}
		set(t, e, table(byNAT))
		if verdict, out := h.run(t, e, f.ethernet()); verdict != h.loop || openPlain(t, out).dst.String() != "10.80.0.11:8080" {
			t.Errorf("by NAT: %s", verdict)
		}
	}
}

func TestTheNodesOwnPortsAreTold(t *testing.T) {
	for _, c := range []struct {
		list        string
		first, last uint16
		want        bool
	}{
		{"\n", 50000, 60999, false}, {"50000-65535\n", 50000, 60999, true}, {"80,443,50000-60999", 50000, 60999, true},
		{"50001-65535", 50000, 60999, false}, {"50000", 50000, 50000, true}, {"50000-50010", 50000, 60999, false},
	} {
		if got := covered(c.list, c.first, c.last); got != c.want {
			t.Errorf("%q has %d to %d: %v", c.list, c.first, c.last, got)
		}
	}
	// Below what the kernel gives to connections, by its default and by any sane one.
	if why := portsClash(Ports{1024, 1025}); why != "" && !strings.Contains(why, "ip_local_port_range is 10") {
		t.Errorf("got %q", why)
	}
	for _, p := range []Ports{{80, 90}, {2000, 1999}} {
		if err := (Options{NATPorts: p}).Validate(); err == nil || !strings.Contains(err.Error(), "NATPorts") {
			t.Errorf("%v: %v", p, err)
		}
	}
}
