package link

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	target = netip.MustParseAddr(vip6)
	asker  = netip.MustParseAddr("fd00::2")
)

func solicitation() ndpMessage {
	return ndpMessage{Type: ndpSolicitation, Source: asker, Destination: solicitedNode(target), Target: target, Link: there, HasLink: true}
}

func TestNDPFramesReadBackAsTheyWereMade(t *testing.T) {
	check := ndpMessage{Type: ndpSolicitation, Source: netip.IPv6Unspecified(), Destination: solicitedNode(target), Target: target}
	unicast := solicitation()
	unicast.Destination, unicast.HasLink, unicast.Link = target, false, MAC{}
	advert := ndpMessage{Type: ndpAdvertisement, Flags: ndpOverride, Source: target, Destination: allNodes, Target: target, Link: here, HasLink: true}
	answer := advert
	answer.Flags, answer.Destination = ndpOverride|ndpSolicited, asker
	group, all := MAC{0x33, 0x33, 0xff, 0, 0x02, 0x00}, MAC{0x33, 0x33, 0, 0, 0, 1}
	for name, c := range map[string]struct {
		frame []byte
		to    MAC
		want  ndpMessage
	}{
		"announcement":              {ndpAnnouncement(target, here), all, advert},
		"probe":                     {ndpProbe(target, here), group, check},
		"answer":                    {ndpAnswer(solicitation(), MAC{9}, here), there, answer},
		"answer to one without MAC": {ndpAnswer(unicast, there, here), there, answer},
		"answer to a check":         {ndpAnswer(check, there, here), all, advert},
		"solicitation":              {solicitation().frame(group, here), group, solicitation()},
	} {
		got, ok := parseNDP(c.frame)
		if !ok || got != c.want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, c.want)
		}
		if to := MAC(c.frame[:6]); to != c.to {
			t.Errorf("%s goes to %s, want %s", name, to, c.to)
		}
	}
}

func TestInvalidNDPIsPassedOver(t *testing.T) {
	const h, p = etherLen, etherLen + ipv6Len
	sum := func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[p+2:], 0)
		s, d := netip.AddrFrom16([16]byte(b[h+8:h+24])), netip.AddrFrom16([16]byte(b[h+24:h+40]))
		n := min(int(binary.BigEndian.Uint16(b[h+4:])), len(b)-p)
		binary.BigEndian.PutUint16(b[p+2:], icmpv6Checksum(s, d, b[p:p+n]))
		return b
	}
	for name, change := range map[string]func([]byte) []byte{
		"short":               func(b []byte) []byte { return b[:p+ndpLen-1] },
		"not IPv6":            func(b []byte) []byte { b[12] = 8; return b },
		"version":             func(b []byte) []byte { b[h] = 4 << 4; return b },
		"next header":         func(b []byte) []byte { b[h+6] = 17; return b },
		"came through router": func(b []byte) []byte { b[h+7] = 254; return b },
		"cut off":             func(b []byte) []byte { return b[:len(b)-1] },
		"length too small":    func(b []byte) []byte { b[h+5] = ndpLen - 1; return sum(b) },
		"checksum":            func(b []byte) []byte { b[p+2]++; return b },
		"type":                func(b []byte) []byte { b[p] = 133; return sum(b) },
		"code":                func(b []byte) []byte { b[p+1] = 1; return sum(b) },
		"target is a group":   func(b []byte) []byte { b[p+8] = 0xff; return sum(b) },
		"source is a group":   func(b []byte) []byte { b[h+8] = 0xff; return sum(b) },
		"option of length 0":  func(b []byte) []byte { b[p+25] = 0; return sum(b) },
		"option too long":     func(b []byte) []byte { b[p+25] = 2; return sum(b) },
		"half an option":      func(b []byte) []byte { b[h+5] = ndpLen + 1; return sum(b) },
		"check with a MAC":    func(b []byte) []byte { clear(b[h+8 : h+24]); return sum(b) },
		"solicited to all": func(b []byte) []byte {
			b[p], b[p+4] = ndpAdvertisement, ndpSolicited
			return sum(b)
		},
	} {
		frame := solicitation().frame(multicastMAC(solicitedNode(target)), here)
		if m, ok := parseNDP(change(frame)); ok {
			t.Errorf("%s is taken as %+v", name, m)
		}
	}
	if _, ok := parseNDP(sum(solicitation().frame(broadcastMAC, here))); !ok {
		t.Error("the unchanged frame is passed over, so this test shows nothing")
	}
}

func FuzzNDP(f *testing.F) {
	f.Add(ndpAnnouncement(target, here))
	f.Add(ndpProbe(target, here))
	f.Add(solicitation().frame(broadcastMAC, here))
	f.Fuzz(func(t *testing.T, frame []byte) {
		holder(frame, target)
		m, ok := parseNDP(frame)
		if !ok {
			return
		}
		if again, ok := parseNDP(m.frame(there, here)); !ok || again != m {
			t.Errorf("%+v reads back as %+v, %t", m, again, ok)
		}
	})
}
