package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// DefaultTTL of the cluster's records, and of "there is none", in seconds.
const DefaultTTL = 5

// builder gathers names before they are laid out as a Table.
type builder struct {
	domains []string          // wire names, the cluster's own first
	names   map[string]*draft // by wire name
	// pointers are the names of addresses: the first one given stays.
	pointers map[netip.Addr]string
	errors   []error
}

// draft is a name in the making.
type draft struct {
	sets []*draftSet
}

// draftSet is the records of one type at one name. Its owner is the one thing
// that they come from: two things that claim one name are never merged.
type draftSet struct {
	rtype   uint16
	owner   string
	records []draftRecord
}

type draftRecord struct {
	body   string
	target string // wire name that an SRV, NS or CNAME leads to
}

// node gives the draft of a name, and makes the empty names above it exist, up
// to its zone's apex.
func (b *builder) node(name string) *draft {
	d := b.names[name]
	if d != nil {
		return d
	}
	d = &draft{}
	b.names[name] = d
	if !b.isApex(name) {
		b.node(parent(name))
	}
	return d
}

// isApex tells whether a name is a zone's: a domain's or a reverse name, each
// of which is a zone of its own since we know single addresses, not ranges.
func (b *builder) isApex(name string) bool {
	return name == "\x00" || slices.Contains(b.domains, name) || isReverse(name)
}

func isReverse(name string) bool {
	return strings.HasSuffix(name, "\x07in-addr\x04arpa\x00") || strings.HasSuffix(name, "\x03ip6\x04arpa\x00")
}

// set gives the set of a type at a name for its owner; nil after noting a
// conflict.
func (b *builder) set(owner, name string, rtype uint16) *draftSet {
	d := b.node(name)
	for _, s := range d.sets {
		switch {
		case s.rtype == rtype && s.owner == owner && rtype != dns.TypeCNAME:
			return s
		case s.rtype == rtype:
			b.fail("%s: the name %s has %s records of %s already", owner, readable(name), dns.TypeToString[rtype], s.owner)
			return nil
		case s.rtype == dns.TypeCNAME || rtype == dns.TypeCNAME:
			// RFC 2181, 10.1: a CNAME stands alone at its name.
			b.fail("%s: a CNAME has its name for itself, but %s has %s records of %s too",
				owner, readable(name), dns.TypeToString[s.rtype], s.owner)
			return nil
		}
	}
	if rtype == dns.TypeCNAME && b.isApex(name) {
		b.fail("%s: the domain %s itself cannot be a CNAME", owner, readable(name))
		return nil
	}
	s := &draftSet{rtype: rtype, owner: owner}
	d.sets = append(d.sets, s)
	return s
}

func (b *builder) fail(format string, args ...any) {
	b.errors = append(b.errors, fmt.Errorf(format, args...))
}

// add puts a record at a name. Equal records of a set are one (RFC 2181, 5).
func (b *builder) add(owner, name string, rtype uint16, ttl int, data, target string) {
	s := b.set(owner, name, rtype)
	if s == nil {
		return
	}
	r := draftRecord{body: recordBody(rtype, ttl, data), target: target}
	if !slices.Contains(s.records, r) {
		s.records = append(s.records, r)
	}
}

// address puts an A or AAAA record at a name, and the name at the address.
func (b *builder) address(owner, name string, ttl int, a netip.Addr) {
	a = a.Unmap()
	b.add(owner, name, addressType(a), ttl, string(a.AsSlice()), "")
	b.point(a, name)
}

// point remembers the name of an address for its PTR record: the first name in
// the cluster's own domain.
func (b *builder) point(a netip.Addr, name string) {
	if a = a.Unmap(); a.IsLoopback() || name[1] == '*' || !strings.HasSuffix(name, b.domains[0]) {
		return
	}
	if _, taken := b.pointers[a]; !taken {
		b.pointers[a] = name
	}
}

func (b *builder) service(owner, name string, weight int, port uint16, target string) {
	data := binary.BigEndian.AppendUint16(nil, 0) // priority
	data = binary.BigEndian.AppendUint16(data, uint16(weight))
	data = binary.BigEndian.AppendUint16(data, port)
	b.add(owner, name, dns.TypeSRV, DefaultTTL, string(data)+target, target)
}

// name joins labels below a domain; "" after noting that they are too long.
func (b *builder) name(owner string, parts ...string) string {
	name, err := wireName(parts...)
	if err != nil {
		b.fail("%s: %w", owner, err)
	}
	return name
}

func addressType(a netip.Addr) uint16 {
	if a.Is4() {
		return dns.TypeA
	}
	return dns.TypeAAAA
}

// recordBody is a record on the wire without its owner's name.
func recordBody(rtype uint16, ttl int, data string) string {
	body := binary.BigEndian.AppendUint16(nil, rtype)
	body = binary.BigEndian.AppendUint16(body, dns.ClassINET)
	body = binary.BigEndian.AppendUint32(body, uint32(ttl))
	body = binary.BigEndian.AppendUint16(body, uint16(len(data)))
	return string(body) + data
}

// reverse adds the PTR records of every address that a name leads to.
func (b *builder) reverse() {
	for _, a := range slices.SortedFunc(maps.Keys(b.pointers), netip.Addr.Compare) {
		name := b.name("address "+a.String(), reverseName(a))
		b.add("address "+a.String(), name, dns.TypePTR, DefaultTTL, b.pointers[a], "")
	}
}
