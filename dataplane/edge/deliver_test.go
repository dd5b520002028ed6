package edge

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/weirproject/weir/api"
)

func TestAPacketGoesThroughTheTunnelAsItCame(t *testing.T) {
	e := newEdge(t)
	web := service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")
	web6 := service("web/tcp/6", api.TCP, "[fd77::1]:80", "[fd00::11]:8080")
	dns := service("dns/udp/4", api.UDP, "198.18.0.1:53", "10.80.0.12:5353")
	over6 := service("over6/tcp/4", api.TCP, "198.18.0.2:80", "10.80.0.13:80")
	over6.Backends[0].Node = netip.MustParseAddr("fd00::77")
	over4 := service("over4/udp/6", api.UDP, "[fd77::2]:53", "[fd00::14]:53")
	over4.Backends[0].Node = netip.MustParseAddr("10.80.0.77")
	ipip := service("ipip/tcp/4", api.TCP, "198.18.0.3:80", "10.80.0.15:80")
	ipip6 := service("ipip/tcp/6", api.TCP, "[fd77::3]:80", "[fd00::15]:80")
	ipip.Deliver, ipip6.Deliver = api.IPIP, api.IPIP
	ipip.Backends[0].Node = netip.Addr{}
	set(t, e, table(dns, ipip, ipip6, over4, over6, web, web6))
	v4, v6 := addr("203.0.113.9:4000"), addr("[2001:db8::9]:4000")
	for name, c := range map[string]struct {
		frame   frame
		node    string
		backend string
	}{
		"tcp4":         {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, payload: []byte("hello")}, "10.80.0.12", "10.80.0.11:8080"},
		"syn":          {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn, class: 0xb8}, "10.80.0.12", "10.80.0.11:8080"},
		"vlan":         {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, tags: []uint16{7}}, "10.80.0.12", "10.80.0.11:8080"},
		"qinq":         {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, tags: []uint16{7, 9}}, "10.80.0.12", "10.80.0.11:8080"},
		"options":      {frame{src: v4, dst: addr("198.18.0.1:80"), protocol: tcp, options: []byte{1, 1, 1, 0, 1, 1, 1, 0}}, "10.80.0.12", "10.80.0.11:8080"},
		"udp4":         {frame{src: v4, dst: addr("198.18.0.1:53"), protocol: udp, payload: []byte("q")}, "10.80.0.13", "10.80.0.12:5353"},
		"tcp6":         {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp, class: 3}, "fd00::12", "[fd00::11]:8080"},
		"extensions":   {frame{src: v6, dst: addr("[fd77::1]:80"), protocol: tcp, extension: 60, options: []byte{tcp, 0, 1, 4, 0, 0, 0, 0}}, "fd00::12", "[fd00::11]:8080"},
		"4 over 6":     {frame{src: v4, dst: addr("198.18.0.2:80"), protocol: tcp}, "fd00::77", "10.80.0.13:80"},
		"6 over 4":     {frame{src: v6, dst: addr("[fd77::2]:53"), protocol: udp}, "10.80.0.77", "[fd00::14]:53"},
		"ipip":         {frame{src: v4, dst: addr("198.18.0.3:80"), protocol: tcp}, "10.80.0.15", ""},
		"ip6ip6":       {frame{src: v6, dst: addr("[fd77::3]:80"), protocol: tcp}, "fd00::16", ""},
		"ip6ip6, vlan": {frame{src: v6, dst: addr("[fd77::3]:80"), protocol: tcp, tags: []uint16{5}}, "fd00::16", ""},
	} {
		t.Run(name, func(t *testing.T) {
			eachHook(t, func(t *testing.T, h hook) {
				if len(c.frame.tags) > 0 && h.loop == redirect {
					t.Skip("at TCX the tag is no part of the frame")
				}
				verdict, out := h.run(t, e, c.frame.ethernet())
				if verdict != h.loop {
					t.Fatalf("verdict %s, want %s; reasons %v", verdict, h.loop, reasons(t, e))
				}
				got := openTunnel(t, out)
				if got.destination != hopMAC || got.source != edgeMAC || got.tag != 0 {
					t.Errorf("ethernet % x", out[:18])
				}
				if got.dst.String() != c.node || got.class != c.frame.class {
					t.Errorf("outer header to %s with class %d, want %s and %d", got.dst, got.class, c.node, c.frame.class)
				}
				if source := map[bool]string{true: "10.80.0.31", false: "fd00::31"}[got.dst.Is4()]; got.src.String() != source {
					t.Errorf("outer header from %s, want %s", got.src, source)
				}
				if c.backend != "" && (got.backend.String() != c.backend || got.port < 0xc000) || c.backend == "" && got.port != 0 {
					t.Errorf("for backend %s from port %d, want %s", got.backend, got.port, c.backend)
				}
				if want := c.frame.ip(); !bytes.Equal(got.inner, want) {
					t.Errorf("inside is\n% x, want\n% x", got.inner, want)
				}
			})
		})
	}
}

func TestAHopMayHaveATag(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	tagged := testHop
	tagged.VLAN = 42
	o.Hops = hops{hop: tagged}
	e := open(t, o)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")))
	for _, tags := range [][]uint16{nil, {7}, {7, 9}} {
		f := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp, tags: tags}
		verdict, out := hooks["xdp"].run(t, e, f.ethernet())
		if got := openTunnel(t, out); verdict != transmit || got.tag != 42 || !bytes.Equal(got.inner, f.ip()) {
			t.Errorf("tags %v: %s, tag %d", tags, verdict, got.tag)
		}
	}
}

func TestABackendOnThisNodeGetsATunnelThatGoesOn(t *testing.T) {
	e := newEdge(t)
	s := service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")
	s.Backends[0].Node = netip.MustParseAddr("10.80.0.31")
	set(t, e, table(s))
	eachHook(t, func(t *testing.T, h hook) {
		f := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp}
		verdict, out := h.run(t, e, f.ethernet())
		got := openTunnel(t, out)
		if verdict != pass || got.destination != edgeMAC || got.source != clientMAC || got.dst != got.src || !bytes.Equal(got.inner, f.ip()) {
			t.Errorf("%s: %+v", verdict, got)
		}
	})
}

func TestAnotherInterfaceIsRedirectedTo(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	other := testHop
	other.Interface = 77
	o.Hops = hops{hop: other}
	e := open(t, o)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")))
	eachHook(t, func(t *testing.T, h hook) {
		f := frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.1:80"), protocol: tcp}
		if verdict, _ := h.run(t, e, f.ethernet()); verdict != redirect {
			t.Errorf("%s", verdict)
		}
	})
}

func TestWhatIsNotOursPasses(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:8080")))
	arp := append(append(append([]byte{}, edgeMAC[:]...), clientMAC[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	eachHook(t, func(t *testing.T, h hook) {
		for name, raw := range map[string][]byte{
			"arp":          append(arp, make([]byte, 40)...),
			"tcp4":         frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.9:80"), protocol: tcp}.ethernet(),
			"udp6":         frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp}.ethernet(),
			"esp":          frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.9:80"), protocol: 50, payload: make([]byte, 30)}.ethernet(),
			"fragment":     frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.9:80"), protocol: udp, later: true, fragment: 100, payload: make([]byte, 64)}.ethernet(),
			"bad checksum": corrupt(frame{src: addr("203.0.113.9:4000"), dst: addr("198.18.0.9:80"), protocol: tcp}.ethernet(), 24),
		} {
			if verdict, out := h.run(t, e, raw); verdict != pass || !bytes.Equal(out, raw) {
				t.Errorf("%s: %s\n% x, want\n% x", name, verdict, out, raw)
			}
		}
	})
}

// corrupt inverts a byte.
func corrupt(raw []byte, at int) []byte {
	raw[at] ^= 0xff
	return raw
}
