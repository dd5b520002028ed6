package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// DefaultTTL of the cluster's records, and of "there is none", in seconds.
const DefaultTTL = 5

// claim is one record that a document or a task wants at a name. What a source
// claims follows from it and from the few facts in names alone, so that a change
// is the difference of two lists.
type claim struct {
	name  string // on the wire
	rtype uint16 // 0: the name shall exist
	rank  uint8
	owner uint32
	body  string // as in a message, without the owner's name
}

// Ranks say whose name an address's PTR record gives, and which of two derived
// claims is answered: the lower one.
const (
	rankNode uint8 = iota
	rankVIP
	rankTask
	rankService
	rankRecord
	rankShared // what many claim together, and the proxy's own names
)

// derived is the owner's bit of what nobody wrote down: names of tasks and the
// proxy's own. Documents hide them without an error.
const derived = 1 << 31

// claims gathers what a source claims, and what is wrong with it.
type claims struct {
	*names
	list   []claim
	errors []error

	owner string
	id    uint32
	rank  uint8

	// owners collects the names of owners, when somebody wants to know.
	owners map[uint32]string
	// left collects what is left out, and why, when somebody wants to know.
	left *[]leftOut
}

// leftOut is a record that is not answered.
type leftOut struct {
	claim
	who, why string
}

// as sets whose claims follow. Two things that claim one name are never merged;
// those of one owner are.
func (c *claims) as(owner string, rank uint8) { c.is(owner, rank, ownerID(owner)) }

// asDerived is as for what no document says.
func (c *claims) asDerived(owner string, rank uint8) { c.is(owner, rank, ownerID(owner)|derived) }

func (c *claims) is(owner string, rank uint8, id uint32) {
	c.owner, c.rank, c.id = owner, rank, id
	if c.owners != nil {
		c.owners[id] = owner
	}
}

// ownerID is FNV-1a over an owner's name.
func ownerID(owner string) uint32 {
	h := uint32(2166136261)
	for i := range len(owner) {
		h = (h ^ uint32(owner[i])) * 16777619
	}
	return h &^ derived
}

func (c *claims) fail(format string, args ...any) {
	c.errors = append(c.errors, fmt.Errorf(format, args...))
}

// name joins labels below a domain; "" after noting that they are too long.
func (c *claims) name(parts ...string) string {
	name, err := wireName(parts...)
	if err != nil {
		c.fail("%s: %w", c.owner, err)
	}
	return name
}

// below joins labels below a domain that is on the wire already.
func (c *claims) below(domain string, parts ...string) string {
	name, err := wireBelow(domain, parts...)
	if err != nil {
		c.fail("%s: %w", c.owner, err)
	}
	return name
}

// add claims a record.
func (c *claims) add(name string, rtype uint16, ttl int, data string) {
	c.list = append(c.list, claim{name: name, rtype: rtype, rank: c.rank, owner: c.id, body: recordBody(rtype, ttl, data)})
}

// exists claims that a name is there, with or without records.
func (c *claims) exists(name string) {
	c.list = append(c.list, claim{name: name, rank: c.rank, owner: c.id})
}

// address claims an A or AAAA record at a name, and the name at the address.
func (c *claims) address(name string, ttl int, a netip.Addr) {
	a = a.Unmap()
	c.add(name, addressType(a), ttl, string(a.AsSlice()))
	c.point(a, name)
}

// addressOwner owns all PTR records, of which the one of the lowest rank shows.
var addressOwner = ownerID("addresses")

// point claims that an address has a name, in the cluster's own domain.
func (c *claims) point(a netip.Addr, name string) {
	if a = a.Unmap(); a.IsLoopback() || name[1] == '*' || !strings.HasSuffix(name, c.domains[0]) {
		return
	}
	c.list = append(c.list, claim{
		name: reverseName(a), rtype: dns.TypePTR, rank: c.rank, owner: addressOwner,
		body: recordBody(dns.TypePTR, DefaultTTL, name),
	})
}

func (c *claims) service(name string, priority, weight int, port uint16, target string) {
	data := binary.BigEndian.AppendUint16(make([]byte, 0, 6+len(target)), uint16(priority))
	data = binary.BigEndian.AppendUint16(data, uint16(weight))
	data = binary.BigEndian.AppendUint16(data, port)
	c.add(name, dns.TypeSRV, DefaultTTL, string(append(data, target...)))
}

// leave notes the claims since mark as left out instead.
func (c *claims) leave(mark int, why string) {
	if c.left != nil {
		for _, one := range c.list[mark:] {
			*c.left = append(*c.left, leftOut{one, c.owner, why})
		}
	}
	c.list = c.list[:mark]
}

func addressType(a netip.Addr) uint16 {
	if a.Is4() {
		return dns.TypeA
	}
	return dns.TypeAAAA
}

// recordBody is a record on the wire without its owner's name.
func recordBody(rtype uint16, ttl int, data string) string {
	body := make([]byte, 10, 10+len(data))
	binary.BigEndian.PutUint16(body, rtype)
	binary.BigEndian.PutUint16(body[2:], dns.ClassINET)
	binary.BigEndian.PutUint32(body[4:], uint32(ttl))
	binary.BigEndian.PutUint16(body[8:], uint16(len(data)))
	return string(append(body, data...))
}

// isReverse tells whether a name stands for an address. Each of those is a zone
// of its own, since we know single addresses and not ranges.
func isReverse(name string) bool {
	return strings.HasSuffix(name, "\x07in-addr\x04arpa\x00") || strings.HasSuffix(name, "\x03ip6\x04arpa\x00")
}
