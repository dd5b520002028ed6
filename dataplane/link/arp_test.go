package link

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	here  = MAC{2, 0, 0, 0, 0, 1}
	there = MAC{2, 0, 0, 0, 0, 2}
)

func TestARPFramesReadBackAsTheyWereMade(t *testing.T) {
	addr := netip.MustParseAddr(vip4)
	asked := arpPacket{Operation: arpRequest, SenderMAC: there, Sender: netip.MustParseAddr("10.80.0.2"), Target: addr}
	for name, c := range map[string]struct {
		frame []byte
		to    MAC
		want  arpPacket
	}{
		"request form": {arpAnnouncements(addr, here)[0], broadcastMAC, arpPacket{arpRequest, here, addr, MAC{}, addr}},
		"reply form":   {arpAnnouncements(addr, here)[1], broadcastMAC, arpPacket{arpReply, here, addr, broadcastMAC, addr}},
		"probe":        {arpProbe(addr, here), broadcastMAC, arpPacket{arpRequest, here, netip.IPv4Unspecified(), MAC{}, addr}},
		"answer":       {arpAnswer(asked, here), there, arpPacket{arpReply, here, addr, there, asked.Sender}},
	} {
		got, ok := parseARP(c.frame)
		if !ok || got != c.want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, c.want)
		}
		if to, from := MAC(c.frame[:6]), MAC(c.frame[6:12]); to != c.to || from != here {
			t.Errorf("%s goes from %s to %s, want to %s", name, from, to, c.to)
		}
	}
}

func TestOtherARPIsPassedOver(t *testing.T) {
	good := arpProbe(netip.MustParseAddr(vip4), here)
	for name, change := range map[string]func([]byte) []byte{
		"short":           func(b []byte) []byte { return b[:len(b)-1] },
		"not ARP":         func(b []byte) []byte { b[13] = 0; return b },
		"other hardware":  func(b []byte) []byte { b[etherLen+1] = 6; return b },
		"other protocol":  func(b []byte) []byte { b[etherLen+2] = 0x86; return b },
		"hardware length": func(b []byte) []byte { b[etherLen+4] = 8; return b },
		"protocol length": func(b []byte) []byte { b[etherLen+5] = 16; return b },
		"operation":       func(b []byte) []byte { binary.BigEndian.PutUint16(b[etherLen+6:], 3); return b },
	} {
		if p, ok := parseARP(change(append([]byte(nil), good...))); ok {
			t.Errorf("%s is taken as %+v", name, p)
		}
	}
}

func FuzzARP(f *testing.F) {
	addr := netip.MustParseAddr(vip4)
	f.Add(arpProbe(addr, here))
	f.Add(arpAnnouncements(addr, here)[1])
	f.Fuzz(func(t *testing.T, frame []byte) {
		holder(frame, addr)
		p, ok := parseARP(frame)
		if !ok {
			return
		}
		if again, ok := parseARP(p.frame(there)); !ok || again != p {
			t.Errorf("%+v reads back as %+v", p, again)
		}
	})
}
