package peers

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestAPacketComesBackAsItWasAndIsBelievedWithTheKeyAlone(t *testing.T) {
	p := &packet{
		kind: kindAsk, from: "a1", session: 1, receiver: 2, sequence: 3, nonce: 4, node: "a2", reached: true, digest: 5,
		entries: []entry{{"a3", 7, dead}, {"a4", 8, alive}},
	}
	data := p.encode(nil, testKey)
	back, err := decode(data, testKey)
	if err != nil || !reflect.DeepEqual(back, p) {
		t.Fatalf("got %+v, %v", back, err)
	}
	for i := range data {
		changed := slices.Clone(data)
		changed[i] ^= 1
		if _, err := decode(changed, testKey); err == nil {
			t.Errorf("byte %d was changed, and the packet believed", i)
		}
		if _, err := decode(data[:i], testKey); err == nil {
			t.Errorf("cut to %d bytes, and believed", i)
		}
	}
	if _, err := decode(data, []byte("another key that is long enough.")); !errors.Is(err, errForged) {
		t.Errorf("another key: got %v", err)
	}
}

func TestThePacketsOfManyEntriesFit(t *testing.T) {
	p := &packet{kind: kindPing, from: strings.Repeat("x", maxName), node: strings.Repeat("y", maxName)}
	for range maxEntries {
		p.entries = append(p.entries, entry{strings.Repeat("z", maxName), 1, dead})
	}
	if n := len(p.encode(nil, testKey)); n > maxPacket {
		t.Errorf("got %d bytes, more than %d", n, maxPacket)
	}
}

func TestARecordedPacketIsOfNoUse(t *testing.T) {
	d, err := New(Options{Self: "a1", Key: testKey, Listen: netip.MustParseAddrPort("127.0.9.1:19466")})
	if err != nil {
		t.Fatal(err)
	}
	d.Set([]api.Node{
		{Name: "a2", Addresses: []netip.Addr{netip.MustParseAddr("127.0.9.2")}},
		{Name: "a3", Addresses: []netip.Addr{netip.MustParseAddr("127.0.9.3")}},
	})
	from, now := netip.MustParseAddrPort("127.0.9.2:19466"), time.Now()
	take := func(p packet) int { return len(d.take(t.Context(), &p, from, now)) }
	says := func(receiver, session, sequence uint64) packet {
		return packet{kind: kindPing, from: "a2", receiver: receiver, session: session, sequence: sequence, entries: []entry{{"a3", sequence, dead}}}
	}
	known := func() entry { return d.members["a3"].entry }
	if take(says(0, 5, 1)) != 1 || take(says(99, 5, 1)) != 1 {
		t.Error("a ping that does not know our session is not answered")
	}
	if d.members["a3"].known {
		t.Error("what it says was believed all the same")
	}
	take(says(d.session, 5, 1))
	if known() != (entry{"a3", 1, dead}) {
		t.Errorf("a fresh packet was not believed: %+v", known())
	}
	d.members["a3"].entry = entry{"a3", 0, alive}
	take(says(d.session, 5, 1))
	if known().rank != alive {
		t.Error("a packet was believed twice")
	}
	take(says(d.session, 6, 2)) // a2 has started again
	if known().incarnation != 2 {
		t.Errorf("the new session was not believed: %+v", known())
	}
	take(says(d.session, 5, 9))
	if known().incarnation != 2 {
		t.Error("a packet of a session that is over was believed")
	}
	if p := (packet{kind: kindAck, from: "a2", receiver: d.session, session: 6, sequence: 7, nonce: 1234, entries: []entry{{"a3", 99, dead}}}); take(p) != 0 || known().incarnation == 99 {
		t.Error("an ack to no ping was believed")
	}
}

func TestSequencesCountOnceInAnyOrder(t *testing.T) {
	var r replays
	for _, c := range []struct {
		sequence uint64
		want     bool
	}{{100, true}, {99, true}, {100, false}, {101, true}, {37, false}, {38, true}, {38, false}, {500, true}, {101, false}, {499, true}} {
		if got := r.fresh(&packet{session: 1, sequence: c.sequence}); got != c.want {
			t.Errorf("%d: got %v", c.sequence, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&packet{kind: kindPing, from: "a1", entries: []entry{{"a2", 1, dead}}}).encode(nil, testKey))
	f.Fuzz(func(t *testing.T, body []byte) {
		// With the right checksum, so that the rest is looked into.
		data := append(body[:len(body):len(body)], checksum(body, testKey)[:sumSize]...)
		if p, err := decode(data, testKey); err == nil && p.encode(nil, testKey) == nil {
			t.Error("a packet that cannot be encoded")
		}
	})
}
