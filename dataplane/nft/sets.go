package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// kind says what a set of ours holds.
type kind uint8

const (
	addresses   kind = iota // spans of addresses
	classes                 // a map from addresses to numbers of classes
	hosts                   // single addresses, by hash: a part of addresses
	hostClasses             // likewise of classes
	endpoints               // address . protocol . port
	verdicts                // a map from numbers of classes to chains
	learnt                  // addresses with timeouts, filled by Learn
	meter                   // addresses with limits, filled by packets
)

// set is one set of the kernel's, of one address family. It is not changed once
// it is built.
type set struct {
	kind    kind
	v6      bool
	list    spanList // addresses and classes: sorted, disjoint, as few as possible
	spans   []span   // likewise of a part, of what is found, and of a difference
	keys    []string // endpoints, verdicts (number and chain): sorted
	version uint64   // of the AddressSet or EndpointSet; 0: unknown
	inputs  []*set   // classes: the sets that they tell apart
	of      *set     // a part: the whole
	short   bool     // a part: of short spans
	entire  bool     // a part: of all spans
	// from is the set that this one came from, by taking away stale and adding
	// fresh spans; nil when that is not known.
	from         *set
	stale, fresh []span
}

// size is the number of elements that Set answers for.
func (s *set) size() int { return len(s.all()) + len(s.keys) }

// changes gives the elements that only s and only o has. Of sets that others
// fill it gives none.
func (s *set) changes(o *set) (stale, fresh *set) {
	stale, fresh = &set{kind: o.kind, v6: o.v6}, &set{kind: o.kind, v6: o.v6}
	if s == o {
		return stale, fresh
	}
	if o.from == s {
		stale.spans, fresh.spans = o.stale, o.fresh
		return stale, fresh
	}
	stale.spans, fresh.spans = difference(s.all(), o.all())
	a, b := s.keys, o.keys
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			stale.keys, a = append(stale.keys, a[0]), a[1:]
		case len(a) == 0 || a[0] > b[0]:
			fresh.keys, b = append(fresh.keys, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return stale, fresh
}

// sameAs tells whether the two hold the same.
func (s *set) sameAs(o *set) bool {
	if s == o {
		return true
	}
	stale, fresh := s.changes(o)
	return s.kind == o.kind && s.v6 == o.v6 && stale.size()+fresh.size() == 0
}

// setOf names the kernel's set with one family of an address set.
func setOf(name string, v6 bool) string {
	if v6 {
		return name + "_6"
	}
	return name + "_4"
}

// A set that changes together with rules, or in more than one direction, is
// made anew under its other name, so that no packet sees half of the change.
const otherName = "_b"

func nominal(name string) string { return strings.TrimSuffix(name, otherName) }

func twin(name string) string {
	if n := nominal(name); n != name {
		return n
	}
	return name + otherName
}

// addressSet builds one family of the set, from the last one if it can.
func addressSet(s dataplane.AddressSet, v6 bool, last *set) (*set, error) {
	if last != nil && s.Version != 0 {
		if last.version == s.Version {
			return last, nil
		}
		if s.Delta != nil && s.Delta.From != 0 && s.Delta.From == last.version {
			return derive(s, v6, last)
		}
	}
	all := s.Prefixes
	if len(s.Pieces) > 0 {
		all = slices.Collect(s.All())
	}
	found, err := spans(all, v6)
	return &set{kind: addresses, v6: v6, list: listOf(found), version: s.Version}, err
}

// derive builds the set from the last one and its delta.
func derive(s dataplane.AddressSet, v6 bool, last *set) (*set, error) {
	added, err := spans(s.Delta.Added, v6)
	if err != nil {
		return nil, err
	}
	removed, err := spans(s.Delta.Removed, v6)
	if err != nil {
		return nil, err
	}
	now := &set{kind: addresses, v6: v6, version: s.Version, from: last, list: last.list}
	regions := join(slices.Concat(added, removed))
	if len(regions) == 0 {
		return now, nil
	}
	now.list, now.stale, now.fresh = last.list.renew(regions, func(old []span, region span) []span {
		kept := subtract(old, overlapping(removed, region))
		return join(slices.Concat(kept, overlapping(added, region)))
	})
	return now, nil
}

// endpointSet builds one family of the set.
func endpointSet(s dataplane.EndpointSet, v6 bool, last *set) (*set, error) {
	if last != nil && s.Version != 0 && last.version == s.Version {
		return last, nil
	}
	out := &set{kind: endpoints, v6: v6, version: s.Version}
	for _, e := range s.Endpoints {
		a := e.Address.Addr()
		if !a.IsValid() || a.Is4In6() {
			return nil, fmt.Errorf("%s is no address as packets carry it", e.Address)
		}
		number, known := map[api.Protocol]byte{api.TCP: unix.IPPROTO_TCP, api.UDP: unix.IPPROTO_UDP}[e.Protocol]
		if !known {
			return nil, fmt.Errorf("%s has the unknown protocol %q", e.Address, e.Protocol)
		}
		if a.Is6() == v6 {
			out.keys = append(out.keys, endpointKey(e.Address, number))
		}
	}
	slices.Sort(out.keys)
	out.keys = slices.Compact(out.keys)
	return out, nil
}

// endpointKey concatenates address, protocol and port, each filled up to whole
// registers of 4 bytes.
func endpointKey(a netip.AddrPort, protocol byte) string {
	key := append(a.Addr().AsSlice(), protocol, 0, 0, 0)
	key = binary.BigEndian.AppendUint16(key, a.Port())
	return string(append(key, 0, 0))
}
