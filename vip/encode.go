package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"

	"github.com/weirproject/weir/api"
)

// baseFormat starts every encoded Base; its last byte is the version.
const baseFormat = "weirbase\x01"

var checksums = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary implements encoding.BinaryMarshaler: the format, the numbers of
// members and slots, each member with the length of its address, the address,
// port and weight, the owner of each slot, and a CRC-32C of all that. Numbers are
// varints.
func (b *Base) MarshalBinary() ([]byte, error) {
	out := []byte(baseFormat)
	out = binary.AppendUvarint(out, uint64(len(b.members)))
	out = binary.AppendUvarint(out, uint64(len(b.owners)))
	for _, m := range b.members {
		address := m.Address.Addr().AsSlice()
		out = append(append(out, byte(len(address))), address...)
		out = binary.BigEndian.AppendUint16(out, m.Address.Port())
		out = binary.AppendUvarint(out, uint64(m.Weight))
	}
	for _, o := range b.owners {
		out = binary.AppendUvarint(out, uint64(o))
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, checksums)), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It fails on another
// version, on damage and on what MarshalBinary does not write; b then stays as it is.
func (b *Base) UnmarshalBinary(data []byte) error {
	if len(data) < len(baseFormat)+4 || string(data[:len(baseFormat)]) != baseFormat {
		return errors.New("decode base table: it is not of this version")
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if crc32.Checksum(body, checksums) != sum {
		return errors.New("decode base table: the checksum is wrong")
	}
	r := bytes.NewReader(body[len(baseFormat):])
	decoded, err := decodeBase(r)
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes are left over", r.Len())
	}
	if err != nil {
		return fmt.Errorf("decode base table: %w", err)
	}
	*b = *decoded
	return nil
}

func decodeBase(r *bytes.Reader) (*Base, error) {
	members, err := number(r, "members", r.Len())
	if err != nil {
		return nil, err
	}
	slots, err := number(r, "slots", maxSlots)
	if err != nil {
		return nil, err
	}
	if slots != 0 && tableSize(0, slots) != slots {
		return nil, fmt.Errorf("%d slots are no size of a table", slots)
	}
	b := &Base{}
	for range members {
		m, err := decodeMember(r)
		if err != nil {
			return nil, err
		}
		if n := len(b.members); n > 0 && byAddress(b.members[n-1], m) >= 0 {
			return nil, fmt.Errorf("%s does not come after %s", m.Address, b.members[n-1].Address)
		}
		b.members = append(b.members, m)
	}
	for range slots {
		owner, err := number(r, "owner", members-1)
		if err != nil {
			return nil, err
		}
		if b.members[owner].Weight == 0 {
			return nil, fmt.Errorf("%s has slots without a weight", b.members[owner].Address)
		}
		b.owners = append(b.owners, uint32(owner))
	}
	return b, nil
}

func decodeMember(r *bytes.Reader) (Member, error) {
	length, err := r.ReadByte()
	if err != nil {
		return Member{}, errors.New("a member is cut off")
	}
	raw := make([]byte, int(length)+2)
	if n, _ := r.Read(raw); n < len(raw) {
		return Member{}, errors.New("a member is cut off")
	}
	address, ok := netip.AddrFromSlice(raw[:length])
	if !ok {
		return Member{}, fmt.Errorf("an address has %d bytes", length)
	}
	weight, err := number(r, "weight", api.MaxWeight)
	return Member{netip.AddrPortFrom(address, binary.BigEndian.Uint16(raw[length:])), weight}, err
}

func number(r *bytes.Reader, what string, most int) (int, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", what, err)
	}
	if most < 0 || n > uint64(most) {
		return 0, fmt.Errorf("read %s: %d is above %d", what, n, most)
	}
	return int(n), nil
}
