package zones

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// maxSetName leaves room for a suffix of two characters in the 31 that the
// names of sets have on every kernel that knows nftables.
const maxSetName = 29

// setName gives the set of a zone a name that packet filters take: it starts
// with a letter, is short enough and belongs to this zone alone. Zones are DNS
// labels, so a name with an underscore can be no other zone's.
func setName(zone string) string {
	if c := zone[0]; c < 'a' || c > 'z' {
		zone = "z_" + zone
	}
	if len(zone) <= maxSetName {
		return zone
	}
	sum := sha256.Sum256([]byte(zone))
	hash := hex.EncodeToString(sum[:4])
	return zone[:maxSetName-len(hash)-1] + "_" + hash
}

// members lists the prefixes of the zone: its nodes' addresses and its CIDRs.
func members(z api.Zone, nodes []api.Node) []netip.Prefix {
	var all []netip.Prefix
	if z.Nodes != nil {
		for _, n := range nodes {
			if !z.Nodes.Matches(n) {
				continue
			}
			for _, a := range addresses(n) {
				all = append(all, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for _, c := range z.CIDRs {
		if c = plainPrefix(c); c.IsValid() {
			all = append(all, c)
		}
	}
	return all
}

// addresses are the node's, as packets carry them: never IPv4 in IPv6, and
// without an interface.
func addresses(n api.Node) []netip.Addr {
	var all []netip.Addr
	for _, a := range n.Addresses {
		if a.IsValid() {
			all = append(all, plain(a))
		}
	}
	return all
}

func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// plainPrefix masks the prefix and writes IPv4 as IPv4.
func plainPrefix(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// merge sorts the prefixes, IPv4 first, drops what another contains and joins
// neighbours, so that the result is disjoint and as short as can be.
func merge(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits() // the wider one first
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue
		}
		out = append(out, p)
		for n := len(out); n > 1 && siblings(out[n-2], out[n-1]); n = len(out) {
			out = append(out[:n-2], netip.PrefixFrom(out[n-2].Addr(), out[n-2].Bits()-1))
		}
	}
	return out
}

// siblings tells whether the two disjoint prefixes make up their parent.
func siblings(a, b netip.Prefix) bool {
	if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().BitLen() != b.Addr().BitLen() {
		return false
	}
	parent := netip.PrefixFrom(a.Addr(), a.Bits()-1)
	return parent.Masked().Addr() == a.Addr() && parent.Contains(b.Addr())
}

// last is the highest address of the prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if free := (i+1)*8 - p.Bits(); free >= 8 {
			b[i] = 0xff
		} else if free > 0 {
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
