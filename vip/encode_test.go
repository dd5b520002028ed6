package vip

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"testing"
)

func encoded(t testing.TB, b *Base) []byte {
	data, err := b.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestABaseIsReadBackAsItWasWritten(t *testing.T) {
	mixed := append(membersOf(1, 0, 1000), Member{netip.MustParseAddrPort("[fd00::1]:53"), 7})
	for _, members := range [][]Member{nil, membersOf(0), membersOf(1), mixed, equalWeights(300)} {
		base := NewBase(nil, members, minSlots)
		var got Base
		if err := got.UnmarshalBinary(encoded(t, base)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.members, base.members) || !slices.Equal(got.owners, base.owners) {
			t.Errorf("%d members: got another table", len(members))
		}
		// Both go on to the same.
		a, b := NewBase(base, equalWeights(5), minSlots), NewBase(&got, equalWeights(5), minSlots)
		if !slices.Equal(a.owners, b.owners) {
			t.Error("an update of what was read is another")
		}
	}
}

// sealed is the body with the right checksum.
func sealed(body []byte) []byte {
	return binary.BigEndian.AppendUint32(slices.Clone(body), crc32.Checksum(body, checksums))
}

func TestADamagedBaseIsRefused(t *testing.T) {
	base := NewBase(nil, membersOf(1, 2), minSlots)
	good := encoded(t, base)
	body := good[:len(good)-4]
	member := func(last byte, weight ...byte) []byte { return append([]byte{4, 10, 0, 0, last, 0, 80}, weight...) }
	build := func(parts ...[]byte) []byte { return sealed(append([]byte(baseFormat), slices.Concat(parts...)...)) }
	slots := make([]byte, 256)
	tests := map[string][]byte{
		"empty":               {},
		"another version":     sealed(append([]byte("weirbase\x02"), body[len(baseFormat):]...)),
		"cut off":             sealed(body[:len(body)-1]),
		"more than that":      sealed(append(slices.Clone(body), 0)),
		"a flipped bit":       append(slices.Clone(good[:40]), append([]byte{good[40] ^ 1}, good[41:]...)...),
		"no numbers":          build(),
		"too many members":    build([]byte{200, 1, 0}),
		"no size of a table":  build([]byte{1, 100}, member(1, 1), slots[:100]),
		"too large":           build([]byte{1, 0x80, 0x80, 0x08}, member(1, 1)),
		"a member is cut off": build([]byte{1, 0}, []byte{4, 10, 0}),
		"no member":           build([]byte{1, 0}),
		"an odd address":      build([]byte{1, 0}, []byte{5, 1, 2, 3, 4, 5, 0, 80, 1}),
		"too heavy":           build([]byte{1, 0}, member(1, 0xe9, 0x07)),
		"not sorted":          build([]byte{2, 0}, member(2, 1), member(1, 1)),
		"twice":               build([]byte{2, 0}, member(1, 1), member(1, 1)),
		"owner without":       build([]byte{0, 0x80, 0x02}, slots),
		"owner of no weight":  build([]byte{1, 0x80, 0x02}, member(1, 0), slots),
	}
	for name, data := range tests {
		var got Base
		if err := got.UnmarshalBinary(data); err == nil || got.members != nil || got.owners != nil {
			t.Errorf("%s: got error %v and %+v", name, err, got)
		}
	}
	var got Base
	if err := got.UnmarshalBinary(build([]byte{1, 0x80, 0x02}, member(1, 1), slots)); err != nil {
		t.Errorf("a table written by hand: %v", err)
	}
}

func FuzzBase(f *testing.F) {
	f.Add(encoded(f, NewBase(nil, membersOf(1, 2, 3), minSlots)), uint8(3))
	f.Fuzz(func(t *testing.T, body []byte, n uint8) {
		var b Base
		if b.UnmarshalBinary(sealed(body)) != nil {
			return
		}
		if again := encoded(t, &b); len(b.owners) != len(NewBase(&b, b.members, 0).owners) && len(b.members)*slotsPerMember <= 2*len(b.owners) || len(again) == 0 {
			t.Error("an update without a change changed the size")
		}
		NewBase(&b, equalWeights(int(n)), minSlots).fill(allFull(int(n)))
	})
}
