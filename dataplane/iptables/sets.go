package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// A set that changes together with rules, or in more than one direction, is
// made anew under its other name, so that no packet sees half of the change.
const otherName = "~b"

// setName is the kernel's first name of a set of the ruleset's: it takes 31
// bytes.
func setName(name string, v6 bool) string {
	prefix := "weir4-"
	if v6 {
		prefix = "weir6-"
	}
	const room = 31 - len("weir4-") - len(otherName)
	if len(name) > room {
		name = name[:room-9] + "-" + digest(name)[:8]
	}
	return prefix + name
}

func twin(name string) string {
	if n := len(name) - len(otherName); n > 0 && name[n:] == otherName {
		return name[:n]
	}
	return name + otherName
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// addressSet writes one family of the set.
func addressSet(s dataplane.AddressSet, v6 bool) (*set, error) {
	out := &set{typ: "hash:net", v6: v6, version: s.Version}
	for p := range s.All() {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("set %s: %s is not a prefix of addresses as packets carry them", s.Name, p)
		}
		if p.Addr().Is6() != v6 {
			continue
		}
		switch p = p.Masked(); {
		case p.Bits() == 0: // this type of set has none with all addresses
			half := netip.MustParseAddr("128.0.0.0")
			if v6 {
				half = netip.MustParseAddr("8000::")
			}
			out.members = append(out.members, netip.PrefixFrom(p.Addr(), 1).String(), netip.PrefixFrom(half, 1).String())
		case p.IsSingleIP():
			out.members = append(out.members, p.Addr().String())
		default:
			out.members = append(out.members, p.String())
		}
	}
	return out.sorted(), nil
}

// endpointSet writes one family of the set.
func endpointSet(s dataplane.EndpointSet, v6 bool) (*set, error) {
	out := &set{typ: "hash:ip,port", v6: v6, version: s.Version}
	for _, e := range s.Endpoints {
		a := e.Address.Addr()
		if !a.IsValid() || a.Is4In6() {
			return nil, fmt.Errorf("set %s: %s is no address as packets carry it", s.Name, e.Address)
		}
		if e.Protocol != api.TCP && e.Protocol != api.UDP {
			return nil, fmt.Errorf("set %s: %s has the unknown protocol %q", s.Name, e.Address, e.Protocol)
		}
		if a.Is6() == v6 {
			out.members = append(out.members, fmt.Sprintf("%s,%s:%d", a, e.Protocol, e.Address.Port()))
		}
	}
	return out.sorted(), nil
}

// sorted sorts the members and makes room for as many again.
func (s *set) sorted() *set {
	slices.Sort(s.members)
	s.members = slices.Compact(s.members)
	s.max = max(1<<16, 1<<bits.Len(uint(2*len(s.members))))
	return s
}

// create is ipset's command that makes the set.
func (s *set) create(name string) string {
	family := "inet"
	if s.v6 {
		family = "inet6"
	}
	timeout := ""
	if s.learns() {
		timeout = " timeout 0"
	}
	return fmt.Sprintf("create %s %s family %s maxelem %d%s\n", name, s.typ, family, s.max, timeout)
}
