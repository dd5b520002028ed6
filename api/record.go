package api

import (
	"fmt"
	"net/netip"
	"strings"
)

// Record is a DNS record set for a name that no task has.
type Record struct {
	// Name is relative to the cluster's domain, or absolute with a final dot
	// when it lies within the domain or an alias of it. "*" may be its first
	// label (RFC 4592).
	Name string `json:"name"`
	// Type is A, AAAA, CNAME, TXT or SRV.
	Type RecordType `json:"type"`
	// Data are the values in presentation format: one record each.
	Data []string `json:"data"`
	// TTL in seconds; nil means the zone's default of 5.
	TTL *int `json:"ttl,omitempty"`
}

// RecordType is a type of DNS record.
type RecordType string

// The record types that state may hold.
const (
	RecordA     RecordType = "A"
	RecordAAAA  RecordType = "AAAA"
	RecordCNAME RecordType = "CNAME"
	RecordTXT   RecordType = "TXT"
	RecordSRV   RecordType = "SRV"
)

// UnmarshalText implements encoding.TextUnmarshaler; case does not matter.
func (t *RecordType) UnmarshalText(b []byte) error {
	return oneOf(t, []byte(strings.ToUpper(string(b))), RecordA, RecordAAAA, RecordCNAME, RecordTXT, RecordSRV)
}

// Kind implements Object.
func (Record) Kind() string { return "record" }

// Key is the name and the type.
func (r Record) Key() string { return strings.ToLower(r.Name) + "/" + string(r.Type) }

// MaxTTL is the longest TTL of a record: one day, in seconds.
const MaxTTL = 86400

// Validate implements Object.
func (r Record) Validate() error {
	var f faults
	checkRecordName(&f, "name", r.Name)
	if r.Type == "" {
		f.add("type", "is missing")
	}
	if len(r.Data) == 0 {
		f.add("data", "is empty")
	}
	if r.Type == RecordCNAME && len(r.Data) > 1 {
		f.add("data", "a CNAME has one value, not %d", len(r.Data))
	}
	for i, d := range r.Data {
		field := fmt.Sprintf("data[%d]", i)
		switch r.Type {
		case RecordA:
			if a, err := netip.ParseAddr(d); err != nil || !a.Is4() {
				f.add(field, "%q is not an IPv4 address", d)
			}
		case RecordAAAA:
			if a, err := netip.ParseAddr(d); err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
				f.add(field, "%q is not an IPv6 address", d)
			}
		case RecordCNAME:
			checkRecordName(&f, field, d)
		case RecordTXT:
			if len(d) > 1024 {
				f.add(field, "is %d characters long, at most 1024 fit", len(d))
			}
		case RecordSRV:
			var priority, weight, port uint16
			var target string
			if n, err := fmt.Sscanf(d, "%d %d %d %s", &priority, &weight, &port, &target); err != nil || n != 4 {
				f.add(field, "%q is not \"priority weight port target\"", d)
				continue
			}
			checkRecordName(&f, field, target)
		}
	}
	if r.TTL != nil && (*r.TTL < 0 || *r.TTL > MaxTTL) {
		f.add("ttl", "%d is not within 0 to %d seconds", *r.TTL, MaxTTL)
	}
	return f.err()
}

// checkRecordName allows underscores and a leading wildcard, beside RFC 1123.
func checkRecordName(f *faults, field, name string) {
	if name == "" {
		f.add(field, "is missing")
		return
	}
	if len(name) > 253 {
		f.add(field, "%q is longer than 253 characters", name)
		return
	}
	for i, label := range strings.Split(strings.TrimSuffix(strings.ToLower(name), "."), ".") {
		if label == "*" && i == 0 {
			continue
		}
		if !isLabel(strings.ReplaceAll(label, "_", "x")) {
			f.add(field, "%q %s", name, labelRule)
			return
		}
	}
}
