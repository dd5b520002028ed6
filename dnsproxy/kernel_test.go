package dnsproxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// directs are a table's names by their text.
func directs(t *Table) map[string]Direct {
	all := map[string]Direct{}
	for d := range t.Direct() {
		all[readable(d.Name)] = d
	}
	return all
}

func TestDirectNamesAreThoseWithAddressesOfTheirOwn(t *testing.T) {
	table := compile(t, fleet(), options())
	all := directs(table)
	for name, want := range map[string][2]int{ // addresses of both types
		"dir.weir.internal": {2, 0}, "a1.node.weir.internal": {1, 1}, "pay.shop.vip.weir.internal": {1, 1}, "web.shop.mesos": {2, 0},
	} {
		d, ok := all[name]
		if found, there := table.FindDirect(d.Name); !ok || !there || !found.equal(d) {
			t.Errorf("%s is not there", name)
			continue
		}
		if got := [2]int{len(d.A.Addresses) / 4, len(d.AAAA.Addresses) / 16}; got != want {
			t.Errorf("%s has %d addresses, want %d", name, got, want)
		}
		zone := d.Name[len(d.Name)-d.ApexLength:]
		if z := readable(zone); z != "weir.internal" && z != "mesos" || table.zones[d.Zone].name != zone {
			t.Errorf("%s is in the zone %s", name, z)
		}
	}
	if d := all["dir.weir.internal"]; d.A.TTL != 60 {
		t.Errorf("dir has a TTL of %d, want 60", d.A.TTL)
	}
	for _, name := range []string{"alias.weir.internal", "text.weir.internal", "weir.internal", "x.apps.weir.internal", "shop.weir.internal"} {
		if _, ok := all[name]; ok {
			t.Errorf("%s is there", name)
		}
	}
	parts := 0
	for part := range 7 {
		for range table.DirectPart(part, 7) {
			parts++
		}
	}
	if parts != len(all) {
		t.Errorf("the parts have %d names, all %d", parts, len(all))
	}
	for _, wire := range []string{"", "x", "\x00", "\x05dir", "\xff", "\x40", "\x03dir\x04weir\x08internal", "\x03dir\x04weir\x08internal\x00\x00"} {
		if _, ok := table.FindDirect(wire); ok {
			t.Errorf("%q is found", wire)
		}
	}
	if n := len(table.DirectZones()); n != 2 {
		t.Errorf("%d zones, want 2", n)
	}
}

// TestDirectSinceTellsEveryDifference: what is applied to a copy of the old names
// makes the new ones, over many random changes.
func TestDirectSinceTellsEveryDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := fleet()
	before := compile(t, s, options())
	held := directs(before)
	for round := range 200 {
		next := *s
		next.Revision++
		next.Records = slices.Clone(s.Records)
		for range 1 + r.IntN(3) {
			name := fmt.Sprintf("r%d", r.IntN(60))
			next.Records = slices.DeleteFunc(next.Records, func(rec api.Record) bool { return rec.Name == name })
			if r.IntN(3) > 0 {
				rec := api.Record{Name: name, Type: api.RecordA, Data: []string{fmt.Sprintf("10.9.0.%d", r.IntN(4))}, TTL: ptr(1 + r.IntN(2))}
				if r.IntN(4) == 0 {
					rec = api.Record{Name: name, Type: api.RecordCNAME, Data: []string{"dir"}}
				}
				next.Records = append(next.Records, rec)
			}
		}
		o := options()
		if o.Previous = before; round%50 == 49 {
			o.Previous = nil // nothing is shared
		}
		table := compile(t, &next, o)
		change := table.DirectSince(before)
		for _, name := range change.Gone {
			if _, there := held[readable(name)]; !there {
				t.Fatalf("%s goes, but was not there", readable(name))
			}
			delete(held, readable(name))
		}
		for _, d := range change.Changed {
			if _, there := held[readable(d.Name)]; there {
				t.Fatalf("%s comes, but did not go before", readable(d.Name))
			}
			held[readable(d.Name)] = d
		}
		if want := directs(table); !maps.EqualFunc(held, want, Direct.equal) {
			t.Fatalf("round %d: %d names, want %d", round, len(held), len(want))
		}
		if o.Previous != nil && len(change.Gone)+len(change.Changed) > 20 {
			t.Errorf("round %d: %d names go and %d come for three records", round, len(change.Gone), len(change.Changed))
		}
		s, before = &next, table
	}
	if c := before.DirectSince(nil); len(c.Gone) > 0 || len(c.Changed) != len(held) {
		t.Errorf("since nothing: %d go, %d come, want %d", len(c.Gone), len(c.Changed), len(held))
	}
	if c := before.DirectSince(before); len(c.Gone)+len(c.Changed) > 0 {
		t.Error("a table differs from itself")
	}
}

func TestDirectAnswersAreForNobodyWhereAccessIsLimited(t *testing.T) {
	everybody := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	some := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name   string
		access []Access
		ok     bool
	}{
		{"none", nil, true},
		{"everybody", []Access{{".", everybody}}, true},
		{"half of everybody", []Access{{".", everybody[:1]}}, false},
		{"all names", []Access{{".", some}}, false},
		{"the domain", []Access{{"weir.internal", some}}, false},
		{"the alias", []Access{{"mesos", some}}, false},
		{"above the domain", []Access{{"internal", some}}, false},
		{"below the domain", []Access{{"shop.weir.internal", some}}, false},
		{"beside it", []Access{{"corp.example", some}, {"xmesos", some}, {"weir.internal.example", nil}}, true},
	} {
		p, err := New(ServerOptions{Listen: anywhere().Listen, Forwarding: Forwarding{Access: c.access}})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.DirectFlags(); ok {
			t.Errorf("%s: without a table there are answers", c.name)
		}
		p.Set(compile(t, fleet(), options()))
		if flags, ok := p.DirectFlags(); ok != c.ok || flags != 0 {
			t.Errorf("%s: got %v and flags %x, want %v", c.name, ok, flags, c.ok)
		}
	}
	p := proxyOf(t, compile(t, fleet(), options()), netip.MustParseAddrPort("127.0.0.1:9"))
	if flags, ok := p.DirectFlags(); !ok || flags != flagRA {
		t.Errorf("got flags %x, want RA", flags)
	}
	p.tap = &tap{}
	if _, ok := p.DirectFlags(); ok {
		t.Error("dnstap would miss answers")
	}
}

func TestADirectSetIsLeftToTheProxyWhenItsTTLsDiffer(t *testing.T) {
	w := &draft{name: "\x01x\x00", sets: []draftSet{{rtype: dns.TypeA}}}
	for i, ttl := range []int{5, 6} {
		body := recordBody(dns.TypeA, ttl, string([]byte{10, 0, 0, byte(i)}))
		w.sets[0].records = append(w.sets[0].records, draftRecord{body: body})
	}
	w.sets[0].shown, w.shown = 2, 1
	data := make([]uint64, w.size()/8)
	s := shard{data: data}
	e := s.entry(0)
	w.write(e)
	if d, ok := directOf(e); !ok || !d.A.Elsewhere || len(d.A.Addresses) > 0 || d.Name != "\x01x\x00" {
		t.Errorf("got %+v, %v", d, ok)
	}
}
