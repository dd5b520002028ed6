package vip

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math/big"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Allot gives every named VIP of the services its addresses from the ranges,
// by name.namespace. What old has is kept; a new name gets the address that
// its hash points to, or the next free one, in the order of the names, so that
// a node that starts afresh arrives at the same as another. A range that is
// not valid gives no addresses, and names that are no longer used lose theirs. A
// name whose address a literal VIP now has gets another. When nothing changes it
// returns old itself, which a Compiler knows at a glance. It fails when a range
// has no address left, with the VIP's name.
func Allot(old map[string]api.VIPAddresses, services []api.Service, range4, range6 netip.Prefix) (map[string]api.VIPAddresses, error) {
	names := map[string]bool{}
	taken := map[netip.Addr]bool{}
	for _, s := range services {
		for _, v := range s.VIPs {
			if v.Name == "" {
				taken[v.Addr] = true
			} else {
				names[v.Name+"."+s.EffectiveNamespace()] = true
			}
		}
	}
	sorted := slices.Sorted(maps.Keys(names))
	allotted := map[string]api.VIPAddresses{}
	keep := func(a netip.Addr, within netip.Prefix) netip.Addr {
		if !isHost(a, within) || taken[a] {
			return netip.Addr{}
		}
		taken[a] = true
		return a
	}
	for _, name := range sorted {
		allotted[name] = api.VIPAddresses{V4: keep(old[name].V4, range4), V6: keep(old[name].V6, range6)}
	}
	for _, name := range sorted {
		a := allotted[name]
		var err error
		if a.V4, err = fill(a.V4, name, range4, taken); err != nil {
			return nil, err
		}
		if a.V6, err = fill(a.V6, name, range6, taken); err != nil {
			return nil, err
		}
		allotted[name] = a
	}
	if old != nil && maps.Equal(old, allotted) {
		return old, nil
	}
	return allotted, nil
}

// fill returns a when it is valid, else a free address of the range.
func fill(a netip.Addr, name string, within netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, error) {
	if a.IsValid() || !within.IsValid() {
		return a, nil
	}
	// The first and the last address of a range may mean a network.
	size := uint64(1) << min(within.Addr().BitLen()-within.Bits(), 62)
	if size < 4 {
		return a, fmt.Errorf("the range %s is too small for named VIPs such as %s: give one of /30 (IPv6: /126) or wider", within, name)
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	usable := size - 2
	// At most len(taken) candidates are taken, so one more finds a free one.
	start := mix(h.Sum64()) % usable
	for i := uint64(0); i < usable && i <= uint64(len(taken)); i++ {
		candidate := offset(within, 1+(start+i)%usable)
		if !taken[candidate] {
			taken[candidate] = true
			return candidate, nil
		}
	}
	return a, fmt.Errorf("the range %s is full: no address is left for the VIP %s", within, name)
}

// isHost tells whether the address lies within the prefix and is neither its
// first nor its last. An invalid prefix has no addresses.
func isHost(a netip.Addr, within netip.Prefix) bool {
	return a.IsValid() && within.IsValid() && within.Contains(a) &&
		within.Masked().Addr() != a && within.Contains(a.Next())
}

// offset is the n-th address of a prefix.
func offset(p netip.Prefix, n uint64) netip.Addr {
	first := p.Masked().Addr()
	if first.Is4() {
		b := first.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := first.As16()
	sum := new(big.Int).Add(new(big.Int).SetBytes(b[:]), new(big.Int).SetUint64(n))
	return netip.AddrFrom16([16]byte(sum.FillBytes(make([]byte, 16))))
}
