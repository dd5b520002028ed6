package owner

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

var self6 = netip.MustParseAddr("fe80::1")

func example(family Family) (p packet, source, destination netip.Addr) {
	p = packet{VRID: 7, Priority: 200, Interval: 200 * time.Millisecond}
	if family == IPv4 {
		p.Addresses = []netip.Addr{netip.MustParseAddr("198.18.0.10"), netip.MustParseAddr("198.18.0.11")}
		return p, mine, group4
	}
	p.Addresses = []netip.Addr{netip.MustParseAddr("fd77:6569:7200::10")}
	return p, self6, group6
}

func TestPacketsReadBackAsTheyWereMade(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		p, source, destination := example(f)
		if got, fault := decode(p.encode(source, destination), source, destination); fault != "" || !reflect.DeepEqual(got, p) {
			t.Errorf("IPv%d: %+v, %q, want %+v", f, got, fault, p)
		}
	}
}

// The bytes were reckoned by hand from RFC 9568.
func TestPacketIsAsTheRFCHasIt(t *testing.T) {
	p, source, destination := example(IPv4)
	if got := hex.EncodeToString(p.encode(source, destination)); got != "3107c8020014"+"9012"+"c612000ac612000b" {
		t.Errorf("encoded as %s", got)
	}
}

func TestChecksumWithoutPseudoHeaderIsTakenForIPv4(t *testing.T) {
	p, source, destination := example(IPv4)
	b := p.encode(source, destination)
	b[6], b[7] = 0, 0
	s := ^fold(sum(b))
	b[6], b[7] = byte(s>>8), byte(s)
	if _, fault := decode(b, source, destination); fault != "" {
		t.Errorf("IPv4: fault %q", fault)
	}
	if _, fault := decode(b, mine, low); fault != "" {
		t.Errorf("IPv4 with other addresses: fault %q", fault)
	}
}

func TestFaultyPacketsAreNamed(t *testing.T) {
	for want, change := range map[Fault]func([]byte) []byte{
		BadLength:   func(b []byte) []byte { return b[:len(b)-1] },
		BadVersion:  func(b []byte) []byte { b[0] = 2<<4 | 1; return b },
		BadChecksum: func(b []byte) []byte { b[6]++; return b },
		BadInterval: func(b []byte) []byte {
			b[7], b[6] = b[7]+b[5], b[6]+b[4] // the sum stays
			b[4], b[5] = 0, 0
			return b
		},
	} {
		p, source, destination := example(IPv4)
		p.Addresses = nil // so that no carry disturbs the sum
		if _, fault := decode(change(p.encode(source, destination)), source, destination); fault != want {
			t.Errorf("fault %q, want %q", fault, want)
		}
	}
	p, source, destination := example(IPv6)
	b := p.encode(source, destination)
	if _, fault := decode(b[:7], source, destination); fault != BadLength {
		t.Errorf("seven bytes: fault %q", fault)
	}
	b[0] = 3<<4 | 2
	if _, fault := decode(b, source, destination); fault != BadVersion {
		t.Errorf("type 2: fault %q", fault)
	}
}

func TestOnlySomeOfManyAddressesAreTold(t *testing.T) {
	p, source, destination := example(IPv6)
	for i := range 300 {
		p.Addresses = append(p.Addresses, netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i >> 8), 15: byte(i)}))
	}
	b := p.encode(source, destination)
	got, fault := decode(b, source, destination)
	if fault != "" || len(got.Addresses) != maxAddresses || len(b)+40 > 1280 {
		t.Errorf("%d addresses in %d bytes, fault %q", len(got.Addresses), len(b), fault)
	}
	p.Interval = time.Hour
	if got, _ := decode(p.encode(source, destination), source, destination); got.Interval != maxWire*centisecond {
		t.Errorf("interval %s", got.Interval)
	}
}

func FuzzPacket(f *testing.F) {
	for _, family := range []Family{IPv4, IPv6} {
		p, source, destination := example(family)
		f.Add(p.encode(source, destination), family == IPv6)
	}
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		source, destination := mine, group4
		if six {
			source, destination = self6, group6
		}
		p, fault := decode(b, source, destination)
		if fault != "" || len(p.Addresses) > maxAddresses {
			return
		}
		if again, fault := decode(p.encode(source, destination), source, destination); fault != "" || !reflect.DeepEqual(again, p) {
			t.Errorf("%+v reads back as %+v, %q", p, again, fault)
		}
	})
}

func TestPriorityFollowsTheOrderThenTheNames(t *testing.T) {
	nodes := []string{"e3", "e1", "e2", "e4"}
	for name, want := range map[string]uint8{"e3": 254, "e4": 253, "e1": 252, "e2": 251} {
		if got, err := PriorityOf(name, []string{"e3", "e4"}, nodes); got != want || err != nil {
			t.Errorf("PriorityOf(%s) = %d, %v, want %d", name, got, err, want)
		}
	}
	if _, err := PriorityOf("e9", nil, nodes); err == nil {
		t.Error("a node that is not there has a priority")
	}
	if got := atLeastOne(300); got != 1 {
		t.Errorf("rank 300 has priority %d", got)
	}
}

func TestLinkLocalAddressesInUseAreFound(t *testing.T) {
	const table = `fd000000000000000000000000000001 02 40 00 80     eth0
fe80000000000000000000fffe000009 03 40 20 80     eth1
fe80000000000000000000fffe000001 02 40 20 c0     eth0
fe80000000000000000000fffe000002 02 40 20 88     eth0
fe80000000000000000000fffe000003 02 40 20 80     eth0
`
	if got := linkLocal(table, "eth0"); got.String() != "fe80::ff:fe00:3" {
		t.Errorf("found %s", got)
	}
	if got := linkLocal(table, "eth2"); got.IsValid() {
		t.Errorf("found %s on an interface without", got)
	}
}
