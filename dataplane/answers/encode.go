package answers

import (
	"encoding/binary"
	"strings"

	"github.com/weirproject/weir/bpf"
)

// Types of records, on the wire.
const (
	typeA    = 1
	typeAAAA = 28
)

// hashOf a name on the wire, as read_name in bpf/dns_message.h has it.
func hashOf(seed uint64, name *[MaxName / 8]uint64, length int) uint64 {
	hash := seed
	for i := 0; i*8 < length; i++ {
		hash = (hash ^ name[i]) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return hash
}

// words of a name on the wire. ok is false for a name that the program does not
// know: it is too long, or has a zero before its end.
func words(wire string) (name [MaxName / 8]uint64, ok bool) {
	if len(wire) > MaxName || strings.IndexByte(wire, 0) != len(wire)-1 {
		return name, false
	}
	var raw [MaxName]byte
	copy(raw[:], wire)
	for i := range name {
		name[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	return name, true
}

// wireOf is the reverse of words, for what a map has: it may be anything.
func wireOf(name *[MaxName / 8]uint64) string {
	raw := make([]byte, 0, MaxName)
	for _, w := range name {
		raw = binary.NativeEndian.AppendUint64(raw, w)
	}
	end := strings.IndexByte(string(raw), 0)
	return string(raw[:end+1])
}

// encode makes the map's element of a name, but for its number. ok is false when
// it can have none.
func encode(seed uint64, n Name) (key uint64, value bpf.DnsAnswerDnsName, ok bool) {
	value.Name, ok = words(n.Wire)
	if !ok {
		return 0, value, false
	}
	value.Zone, value.ApexLength = uint32(n.Zone), uint32(n.ApexLength)
	value.A = encodeSet(n.A, typeA, 4)
	value.Aaaa = encodeSet(n.AAAA, typeAAAA, 16)
	if value.A.Count <= uint8(MaxAddresses) {
		for i := range int(value.A.Count) {
			value.V4Be[i] = binary.NativeEndian.Uint32([]byte(n.A.Addresses[4*i:]))
		}
	}
	if value.Aaaa.Count <= uint8(MaxAddresses) {
		for i := range 2 * int(value.Aaaa.Count) {
			value.V6Be[i] = binary.NativeEndian.Uint64([]byte(n.AAAA.Addresses[8*i:]))
		}
	}
	return hashOf(seed, &value.Name, len(n.Wire)), value, true
}

// elsewhere is DNS_ELSEWHERE.
const elsewhere = 255

// encodeSet writes what is the same in all records: the owner, which is a pointer
// to the question's name, type, class, TTL and the data's length.
func encodeSet(s Set, rtype uint16, size int) (set bpf.DnsAnswerDnsSet) {
	count := len(s.Addresses) / size
	switch {
	case s.Elsewhere || count > MaxAddresses:
		set.Count = elsewhere
		return set
	case count == 0:
		return set
	}
	var head [12]byte
	binary.BigEndian.PutUint16(head[0:], 0xC00C)
	binary.BigEndian.PutUint16(head[2:], rtype)
	binary.BigEndian.PutUint16(head[4:], 1)
	binary.BigEndian.PutUint32(head[6:], s.TTL)
	binary.BigEndian.PutUint16(head[10:], uint16(size))
	set.Head, set.Rest = binary.NativeEndian.Uint64(head[:]), binary.NativeEndian.Uint32(head[8:])
	set.Count = uint8(count)
	return set
}
