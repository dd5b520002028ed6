package vip

// A service balanced by chance takes as many slots as its shares ask for, up
// to minSlotCap, or slotsPerBackend for each backend where that is more.
const (
	minSlotCap      = 4096
	slotsPerBackend = 16
)

// shares gives every backend as many slots as its part asks for: exactly, by
// what the parts have in common, where that fits the cap, and rounded to the
// cap otherwise. Rounding moves less than a slot for each backend, one with a
// part keeps at least one, and so all shares together are off by less than 1 in
// slotsPerBackend (2.5% for 100 backends).
func shares(parts []uint64) []uint32 {
	divisor, total, count := uint64(0), uint64(0), uint64(0)
	for _, p := range parts {
		if p > 0 {
			divisor, total, count = gcd(divisor, p), total+p, count+1
		}
	}
	if count == 0 {
		return nil
	}
	limit := max(minSlotCap, slotsPerBackend*count)
	scale := func(part uint64) uint64 { return part / divisor }
	size := total / divisor
	if size > limit {
		scale = func(part uint64) uint64 { return max((part*limit+total/2)/total, 1) }
		size = limit + count
	}
	slots := make([]uint32, 0, size)
	for i, p := range parts {
		if p > 0 {
			for range scale(p) {
				slots = append(slots, uint32(i))
			}
		}
	}
	return slots
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
