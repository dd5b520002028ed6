package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// record claims what a document declares: a relative name in every domain, an
// absolute one (with a final dot) where it says.
func (c *claims) record(r *api.Record) {
	c.as("record "+r.Name+" ("+string(r.Type)+")", rankRecord)
	if !strings.HasSuffix(r.Name, ".") {
		for _, d := range c.domains {
			c.recordAt(r, c.below(d, r.Name), d)
		}
		return
	}
	name := c.name(r.Name)
	domain := c.domainOf(name)
	switch {
	case name == "":
	case domain == "":
		c.fail("%s: the name lies in none of the cluster's domains", c.owner)
	default:
		c.recordAt(r, name, domain)
	}
}

// domainOf gives the domain that a wire name lies in, or "".
func (c *claims) domainOf(name string) string {
	for rest := name; rest != "" && rest[0] != 0; rest = parent(rest) {
		for _, d := range c.domains {
			if rest == d {
				return d
			}
		}
	}
	return ""
}

func (c *claims) recordAt(r *api.Record, name, domain string) {
	if name == "" {
		return
	}
	ttl := DefaultTTL
	if r.TTL != nil {
		ttl = *r.TTL
	}
	rtype := dns.StringToType[string(r.Type)]
	for _, value := range r.Data {
		switch r.Type {
		case api.RecordA, api.RecordAAAA:
			a, err := netip.ParseAddr(value)
			if err != nil || addressType(a.Unmap()) != rtype {
				c.fail("%s: %q is not an address of its type", c.owner, value)
				continue
			}
			c.address(name, ttl, a)
		case api.RecordCNAME:
			if name == domain {
				c.fail("%s: a CNAME has its name for itself, but %s has records of its own", c.owner, readable(name))
			} else if target := c.targetOf(value, domain); target != "" {
				c.add(name, rtype, ttl, target)
			}
		case api.RecordSRV:
			c.serviceRecord(name, ttl, value, domain)
		case api.RecordTXT:
			data, err := textData(value)
			if err != nil {
				c.fail("%s: %w", c.owner, err)
				continue
			}
			c.add(name, rtype, ttl, data)
		default:
			c.fail("%s: records of this type are not served", c.owner)
		}
	}
}

// targetOf is the name in a record's data: below the domain unless it ends in a
// dot, as in every zone file.
func (c *claims) targetOf(value, domain string) string {
	if !strings.HasSuffix(value, ".") {
		return c.below(domain, value)
	}
	name := c.name(value)
	for _, r := range c.renames { // what it stands for can be looked up
		if at := len(name) - len(r.from); at >= 0 && name[at:] == r.from && startsLabel([]byte(name), at) {
			if at == 0 {
				return r.to
			}
			return c.below(r.to, readable(name[:at]+"\x00"))
		}
	}
	return name
}

func (c *claims) serviceRecord(name string, ttl int, value, domain string) {
	var priority, weight, port uint16
	var host string
	if _, err := fmt.Sscanf(value, "%d %d %d %s", &priority, &weight, &port, &host); err != nil {
		c.fail("%s: %q is not \"priority weight port target\"", c.owner, value)
		return
	}
	target := c.targetOf(host, domain)
	if target == "" {
		return
	}
	var data []byte
	for _, n := range []uint16{priority, weight, port} {
		data = binary.BigEndian.AppendUint16(data, n)
	}
	c.add(name, dns.TypeSRV, ttl, string(data)+target)
}

// textData is the data of a TXT record: of strings in quotes, or of plain text
// cut into strings of 255 bytes.
func textData(value string) (string, error) {
	texts := []string{value}
	if strings.HasPrefix(value, `"`) {
		rr, err := dns.NewRR(". 0 IN TXT " + value)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", value, err)
		}
		return packText(rr)
	}
	texts = texts[:0]
	for len(value) > 255 {
		texts, value = append(texts, value[:255]), value[255:]
	}
	var b strings.Builder
	for _, text := range append(texts, value) {
		b.WriteByte(byte(len(text)))
		b.WriteString(text)
	}
	return b.String(), nil
}

// packText lets the library undo the escapes of presentation format.
func packText(rr dns.RR) (string, error) {
	wire := make([]byte, dns.Len(rr)+64)
	n, err := dns.PackRR(rr, wire, 0, nil, false)
	if err != nil {
		return "", fmt.Errorf("pack %s: %w", rr, err)
	}
	return string(wire[1+10 : n]), nil
}
