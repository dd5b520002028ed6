package health

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/weirproject/weir/dataplane"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// ends are two ends of a connection of each family.
var ends = [][2]netip.AddrPort{
	{addrPort("10.80.0.31:40000"), addrPort("198.18.0.10:80")},
	{addrPort("[fd00:80::31]:40000"), addrPort("[fd77:6569:7200::10]:80")},
}

func TestTunnelPortIsTheDataPlanes(t *testing.T) {
	if guePort != dataplane.GUEPort {
		t.Errorf("got %d, want %d", guePort, dataplane.GUEPort)
	}
}

func TestPacketsLookAsTheDataPlaneWantsThem(t *testing.T) {
	for i, want := range []string{
		// GUE with 2 words for IPIP, 10.80.0.11:8080; IPv4 of 44 bytes; a SYN with an MSS
		"02040000 1f900000 0a50000b" +
			"4500002c 00004000 4006 6a41 0a50001f c612000a" +
			"9c400050 12345678 00000000 6002ffff c34e 0000 020404c4",
		// GUE with 5 words for IPv6, [fd00:80::11]:8080; IPv6; a SYN with an MSS
		"05290000 1f900000 fd000080000000000000000000000011" +
			"60000000 00180640 fd000080000000000000000000000031 fd776569720000000000000000000010" +
			"9c400050 12345678 00000000 6002ffff c136 0000 020404c4",
	} {
		backend := addrPort([]string{"10.80.0.11:8080", "[fd00:80::11]:8080"}[i])
		got := appendSegment(appendGUE(nil, backend), segment{from: ends[i][0], to: ends[i][1], seq: 0x12345678, flags: flagSYN})
		if want = strings.ReplaceAll(want, " ", ""); hex.EncodeToString(got) != want {
			t.Errorf("got  %x\nwant %s", got, want)
		}
		if len(got) > maxTunnelled {
			t.Errorf("%d bytes are more than %d", len(got), maxTunnelled)
		}
	}
}

func TestSegmentsAreReadAsTheyWereWritten(t *testing.T) {
	for _, e := range ends {
		for _, flags := range []byte{flagSYN, flagSYN | flagACK, flagRST, flagRST | flagACK, flagACK} {
			want := segment{from: e[1], to: e[0], seq: 0x01020304, ack: 0xfffefdfc, flags: flags}
			packet := appendSegment(nil, want)
			got, ok := readSegment(append(packet, 0, 0, 0), e[0].Addr().Is6(), true) // Ethernet pads
			if !ok || got != want {
				t.Errorf("got %+v %v, want %+v", got, ok, want)
			}
		}
	}
}

// Every bit of a packet is under a checksum, but for those that say nothing of
// the segment, or make it none.
func TestAFlippedBitIsNoticed(t *testing.T) {
	for _, e := range ends {
		v6 := e[0].Addr().Is6()
		want := segment{from: e[1], to: e[0], seq: 1, ack: 2, flags: flagSYN | flagACK}
		packet := appendSegment(nil, want)
		for bit := range len(packet) * 8 {
			packet[bit/8] ^= 1 << (bit % 8)
			got, ok := readSegment(packet, v6, true)
			header := v6 && bit < 64 // class, flow label and hop limit of IPv6 have none
			if ok && !got.damaged && !header {
				t.Errorf("bit %d of %x is not noticed: %+v", bit, packet, got)
			}
			packet[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestAChecksumLeftToTheHardwareIsNotLookedAt(t *testing.T) {
	want := segment{from: ends[0][1], to: ends[0][0], flags: flagSYN | flagACK}
	packet := appendSegment(nil, want)
	packet[ipv4Len+16] ^= 0xff
	if got, ok := readSegment(packet, false, false); !ok || got != want {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
}

func TestJudging(t *testing.T) {
	vip := ends[0][1]
	c := &call{probe: &tunnelProbe{way: Tunnel{VIP: vip}}, seq: 0x70001000}
	for name, step := range map[string]struct {
		answer segment
		want   outcome
	}{
		"opened":                  {segment{from: vip, ack: 0x70001001, flags: flagSYN | flagACK}, opened},
		"refused":                 {segment{from: vip, ack: 0x70001001, flags: flagRST | flagACK}, refused},
		"damaged":                 {segment{from: vip, ack: 0x70001001, flags: flagSYN | flagACK, damaged: true}, damaged},
		"an earlier check":        {segment{from: vip, ack: 0x70000333, flags: flagSYN | flagACK}, stale},
		"an earlier check's rest": {segment{from: vip, ack: 0x70000333, flags: flagACK}, stale},
		"an earlier refusal":      {segment{from: vip, ack: 0x70000333, flags: flagRST | flagACK}, ignored},
		"somebody else's SYN":     {segment{from: vip, ack: 0x70001001, flags: flagSYN}, ignored},
		"another address":         {segment{from: ends[1][1], ack: 0x70001001, flags: flagSYN | flagACK}, ignored},
		"another port":            {segment{from: netip.AddrPortFrom(vip.Addr(), 81), ack: 0x70001001, flags: flagSYN | flagACK}, ignored},
		"no SYN":                  {segment{from: vip, ack: 0x70001001, flags: flagACK}, ignored},
	} {
		if got := c.judge(step.answer); got != step.want {
			t.Errorf("%s: got %d, want %d", name, got, step.want)
		}
	}
}

func TestAWayOfTwoFamiliesIsAFailure(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.80.0.31"), netip.MustParseAddr("fd00:80::31")
	for _, way := range []Tunnel{
		{},
		{VIP: ends[1][1], Node: v4, Source: v6, Outer: v4},
		{VIP: ends[0][1], Node: v4, Source: v6, Outer: v4},
		{VIP: ends[0][1], Node: v4},
		{VIP: ends[0][1], Source: v4},
		{VIP: ends[0][1], Node: v6, Source: v4},
		{VIP: netip.AddrPortFrom(v4, 0), Node: v4, Source: v4},
	} {
		err := newTunnelProbe(nil, way, addrPort("10.80.0.11:8080"))(t.Context())
		if err == nil || isOurs(err) {
			t.Errorf("%+v: got %v", way, err)
		}
	}
	mixed := Tunnel{VIP: ends[0][1], Node: v6, Source: v4, Outer: v6}
	if err := mixed.check(addrPort("10.80.0.11:8080")); err != nil {
		t.Errorf("IPv4 through a tunnel of IPv6: got %v", err)
	}
}

func FuzzReadSegment(f *testing.F) {
	for _, e := range ends {
		v6 := e[0].Addr().Is6()
		packet := appendSegment(nil, segment{from: e[1], to: e[0], seq: 1, ack: 2, flags: flagSYN | flagACK})
		f.Add(packet, v6, true)
		f.Add(packet[:len(packet)-5], v6, false)
	}
	f.Add([]byte{0x4f, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, false, true)
	f.Fuzz(func(t *testing.T, packet []byte, v6, summed bool) {
		s, ok := readSegment(packet, v6, summed)
		if !ok {
			return
		}
		if s.from.Addr().Is6() != v6 || s.to.Addr().Is6() != v6 {
			t.Fatalf("read %+v from %x", s, packet)
		}
		s.damaged = false
		again, ok := readSegment(appendSegment(nil, s), v6, true)
		if !ok || again != s {
			t.Fatalf("%+v was read back as %+v %v", s, again, ok)
		}
	})
}
