package edge

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

// fix4 puts the IPv4 checksum right again.
func fix4(raw []byte) []byte {
	h := raw[14 : 14+int(raw[14]&15)*4]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^sum(h, 0))
	return raw
}

func TestMalformedPacketsAreDroppedByReason(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("t4", api.TCP, "198.18.0.1:80", "10.80.0.11:80"), service("t6", api.TCP, "[fd77::1]:80", "[fd00::11]:80"),
		service("u4", api.UDP, "198.18.0.1:80", "10.80.0.11:80"), service("u6", api.UDP, "[fd77::1]:80", "[fd00::11]:80")))
	t4 := func() []byte {
		return frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, payload: make([]byte, 20)}.ethernet()
	}
	u4 := func() []byte {
		return frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: udp, payload: make([]byte, 20)}.ethernet()
	}
	t6 := func() []byte {
		return frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: tcp, payload: make([]byte, 20)}.ethernet()
	}
	with := func(raw []byte, at int, value ...byte) []byte { copy(raw[at:], value); return raw }
	eachHook(t, func(t *testing.T, h hook) {
		for _, c := range []struct {
			name, fault string
			raw         []byte
		}{
			{"short header", "ip_header", with(t4(), 14, 0x44)},
			{"long header", "ip_length", with(t4()[:14+30], 14, 0x4f)},
			{"ttl", "ip_header", fix4(with(t4(), 22, 0))},
			{"hops", "ip_header", with(t6(), 21, 0)},
			{"total length", "ip_length", fix4(with(t4(), 16, 9, 9))},
			{"total length within the header", "ip_length", fix4(with(t4(), 16, 0, 19))},
			{"payload length", "ip_length", with(t6(), 18, 9, 9)},
			{"payload length 0", "ip_length", with(t6(), 18, 0, 0)},
			{"checksum", "ip_checksum", with(t4(), 24, 1, 2)},
			{"loopback source", "source", fix4(with(t4(), 26, 127))},
			{"multicast source", "source", fix4(with(t4(), 26, 224))},
			{"zero source", "source", fix4(with(t4(), 26, 0))},
			{"own source", "source", fix4(with(t4(), 26, 198, 18, 0, 1))},
			{"multicast source 6", "source", with(t6(), 22, 0xff)},
			{"unspecified source 6", "source", with(t6(), 22, make([]byte, 16)...)},
			{"port 0", "ports", with(t4(), 34, 0, 0)},
			{"no ports", "ports", fix4(with(t4(), 16, 0, 24))},
			{"data offset", "tcp", with(t4(), 46, 0x40)},
			{"data offset beyond", "tcp", with(t4(), 46, 0xf0)},
			{"no flags", "tcp", with(t4(), 47, 0)},
			{"fin alone", "tcp", with(t4(), 47, fin)},
			{"syn and fin", "tcp", with(t4(), 47, syn|fin)},
			{"syn and rst", "tcp", with(t4(), 47, syn|rst)},
			{"udp length", "udp", with(u4(), 38, 9, 9)},
			{"udp length too small", "udp", with(u4(), 38, 0, 7)},
			{"fragment beyond the end", "fragment", fix4(with(t4(), 20, 0x1f, 0xff))},
			{"fragment of odd length", "fragment", fix4(with(with(t4(), 16, 0, 57), 20, 0x20, 1))},
			{"route not at its end", "extension", frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: tcp, extension: 43, options: []byte{tcp, 0, 0, 1, 0, 0, 0, 0}}.ethernet()},
			{"extension beyond", "extension", frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: tcp, extension: 60, options: []byte{tcp, 9, 1, 4, 0, 0, 0, 0}}.ethernet()},
			{"too many extensions", "extension", frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: tcp, extension: 60, options: slices.Concat(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 7), []byte{tcp, 0, 1, 4, 0, 0, 0, 0})}.ethernet()},
		} {
			before, err := e.Counters()
			if err != nil {
				t.Fatal(err)
			}
			verdict, _ := h.run(t, e, c.raw)
			after, _ := e.Counters()
			if verdict != drop || after.Faults[c.fault] != before.Faults[c.fault]+1 || after.Reasons["malformed"] != before.Reasons["malformed"]+1 {
				t.Errorf("%s: %s, faults %v", c.name, verdict, after.Faults)
			}
		}
	})
}

// TestRandomPacketsAreNeverRewrittenWrong corrupts packets of every kind and takes
// apart whatever comes out: what is inside a tunnel is what came, for a backend of
// the service that it names, and all else is passed as it was, answered or dropped.
func TestRandomPacketsAreNeverRewrittenWrong(t *testing.T) {
	e := newEdge(t)
	s6 := service("t6", api.TCP, "[fd77::1]:80", "[fd00::11]:80")
	q4 := service("u4", api.UDP, "198.18.0.1:80", "10.80.0.11:81")
	q4.QUIC = true
	set(t, e, table(service("t4", api.TCP, "198.18.0.1:80", "10.80.0.11:80"), s6, q4, service("u6", api.UDP, "[fd77::1]:80", "[fd00::11]:81")))
	random := rand.New(rand.NewPCG(1, 1))
	v4, v6, d4, d6 := addr("203.0.113.9:4000"), addr("[2001:db8::9]:4000"), addr("198.18.0.1:80"), addr("[fd77::1]:80")
	quoted := frame{src: d4, dst: v4, protocol: tcp}.ip()
	seeds := []frame{
		{src: v4, dst: d4, protocol: tcp, payload: make([]byte, 30)},
		{src: v4, dst: d4, protocol: tcp, flags: syn, options: []byte{1, 1, 1, 0}, tags: []uint16{5}},
		{src: v4, dst: d4, protocol: udp, payload: quicLong(2, []byte("12345678"))},
		{src: v4, dst: d4, protocol: udp, fragment: 0x2000, id: 7, payload: make([]byte, 64)},
		{src: v4, dst: d4, protocol: udp, fragment: 9, id: 7, later: true, payload: make([]byte, 64)},
		{src: v4, dst: d4, protocol: icmp4, icmpType: 3, icmpCode: 4, payload: quoted},
		{src: v6, dst: d6, protocol: tcp, payload: make([]byte, 30)},
		{src: v6, dst: d6, protocol: udp, extension: 60, options: []byte{udp, 0, 1, 4, 0, 0, 0, 0}, payload: make([]byte, 40)},
		{src: v6, dst: d6, protocol: udp, isFragment: true, fragment: 1, id: 7, payload: make([]byte, 64)},
		{src: v6, dst: d6, protocol: icmp6, icmpType: 2, payload: frame{src: d6, dst: v6, protocol: tcp}.ip()},
	}
	tunnels := 0
	for range 20000 {
		f := seeds[random.IntN(len(seeds))]
		raw := f.ethernet()
		for range random.IntN(4) {
			raw[random.IntN(min(len(raw), 110))] = byte(random.Uint32())
		}
		if random.IntN(3) == 0 {
			raw = raw[:max(14, random.IntN(len(raw)))]
		}
		if random.IntN(2) == 0 && len(raw) >= 34 && raw[12] == 8 && raw[13] == 0 && raw[14] == 0x45 {
			fix4(raw)
		}
		h := hooks["xdp"]
		// A test run at TCX takes no packet that ends within its IP header.
		if random.IntN(2) == 0 && len(raw) >= 14+40 {
			h = hooks["tcx"]
		}
		verdict, out := h.run(t, e, raw)
		switch verdict {
		case pass:
			if !bytes.Equal(out, raw) {
				t.Fatalf("passed, but changed:\n% x\n% x", raw, out)
			}
		case h.loop:
			if len(out) > len(raw) && [6]byte(out) == hopMAC {
				tunnels++
				checkTunnel(t, raw, out)
			}
		case redirect:
			t.Fatalf("redirected: % x", out)
		}
	}
	if tunnels < 1000 {
		t.Errorf("only %d packets reached a tunnel", tunnels)
	}
}

// checkTunnel judges what came out for raw.
func checkTunnel(t *testing.T, raw, out []byte) {
	t.Helper()
	got := openTunnel(t, out)
	at := bytes.Index(raw, got.inner)
	if at != 14 && at != 18 && at != 22 || len(got.inner) < 28 {
		t.Fatalf("inside is not what came:\n% x\n% x", raw, got.inner)
	}
	want := map[byte][]string{4: {"10.80.0.11:80", "10.80.0.11:81"}, 6: {"[fd00::11]:80", "[fd00::11]:81"}}[got.inner[0]>>4]
	if !slices.Contains(want, got.backend.String()) {
		t.Fatalf("for %s: % x", got.backend, raw)
	}
	protocol, header := got.inner[9], int(got.inner[0]&15)*4
	if got.inner[0]>>4 == 4 {
		if sum(got.inner[:header], 0) != 0xffff || !bytes.Equal(got.inner[16:20], []byte{198, 18, 0, 1}) {
			t.Fatalf("a damaged packet got through: % x", got.inner)
		}
		if wrong := map[byte]string{tcp: want[1], udp: want[0]}[protocol]; got.backend.String() == wrong {
			t.Fatalf("protocol %d went to %s", protocol, got.backend)
		}
	} else if !bytes.Equal(got.inner[24:40], addr("[fd77::1]:80").Addr().AsSlice()) {
		t.Fatalf("not for the virtual address: % x", got.inner)
	}
}
