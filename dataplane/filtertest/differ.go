package filtertest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// Agree sets rulesets that it makes up, sends packets, and expects of each the
// verdict of Decide. Of the first disagreement it looks for the smallest
// ruleset that shows it.
func Agree(t *testing.T, open Open, rulesets, packets int) {
	n := NewNet(t)
	d := &differ{t: t, net: n, filter: open(t, int(n.Node.NS), false), wire: newWire(t, n)}
	for seed := range uint64(rulesets) {
		d.random = &random{Rand: rand.New(rand.NewPCG(seed, 7)), net: n}
		r, learnt := d.random.ruleset(time.Now())
		var all []Packet
		flows := map[[2]netip.Addr]bool{}
		for range packets {
			p := d.random.packet()
			// Flows of a protocol without ports are told apart by their ends alone.
			if ends := [2]netip.Addr{p.Source, p.Destination}; p.Protocol == otherProtocol {
				if flows[ends] || flows[[2]netip.Addr{p.Destination, p.Source}] {
					continue
				}
				flows[ends] = true
			}
			all = append(all, p)
		}
		if wrong := d.wrong(r, learnt, all, true); len(wrong) > 0 {
			d.shrink(seed, r, learnt, wrong[0])
			return
		}
	}
}

type differ struct {
	t      *testing.T
	net    *Net
	filter Filter
	wire   *wire
	random *random
}

// wrong gives the packets that fare otherwise than Decide says.
func (d *differ) wrong(r *dataplane.Ruleset, learnt map[string][]netip.Addr, packets []Packet, count bool) []Packet {
	d.t.Helper()
	d.net.Forget()
	// Nothing that an earlier ruleset has learnt stays.
	bare := *r
	bare.Dynamic, bare.Input, bare.Forward, bare.Output = nil, nil, nil, nil
	for _, r := range []*dataplane.Ruleset{&bare, r} {
		if _, err := d.filter.Set(d.t.Context(), r); err != nil {
			d.t.Fatalf("%v\n%s", err, text(r))
		}
	}
	for set, addresses := range learnt {
		if err := d.filter.Learn(d.t.Context(), set, addresses, time.Hour); err != nil {
			d.t.Fatal(err)
		}
	}
	before, err := d.filter.Counters()
	if err != nil {
		d.t.Fatal(err)
	}
	want, sent, counts := map[uint32]bool{}, map[uint32]Packet{}, map[string]uint64{}
	for _, p := range packets {
		number, err := d.wire.send(p)
		if err != nil {
			d.t.Fatal(err)
		}
		name, accept := Decide(r, learnt, p, time.Now())
		want[number], sent[number] = accept, p
		counts[name]++
	}
	got := d.wire.passed(want)
	var out []Packet
	for number, p := range sent {
		if got[number] != want[number] {
			out = append(out, p)
		}
	}
	delete(counts, "")
	after, err := d.filter.Counters()
	if err != nil {
		d.t.Fatal(err)
	}
	for name, n := range counts {
		// The kernel's own multicasts may be counted too.
		if have := after[name].Packets - before[name].Packets; count && len(out) == 0 && have < n {
			d.t.Errorf("rule %s counted %d packets, want %d or more:\n%s", name, have, n, text(r))
		}
	}
	return out
}

// shrink takes out of the ruleset what the disagreement does not need.
func (d *differ) shrink(seed uint64, r *dataplane.Ruleset, learnt map[string][]netip.Addr, p Packet) {
	still := func(r *dataplane.Ruleset) bool {
		d.random.fresh(&p)
		return len(d.wrong(r, learnt, []Packet{p}, false)) > 0
	}
	if !still(r) {
		d.t.Errorf("seed %d: %+v fared otherwise than Decide says, but not when sent alone:\n%s", seed, p, text(r))
		return
	}
	for changed := true; changed; {
		changed = false
		for _, smaller := range smaller(r) {
			if still(smaller) {
				r, changed = smaller, true
				break
			}
		}
	}
	name, accept := Decide(r, learnt, p, time.Now())
	d.t.Errorf("seed %d: Decide says accept %v by %q, the kernel does not:\npacket %+v\nlearnt %v\n%s", seed, accept, name, p, learnt, text(r))
}

// smaller gives rulesets with one thing less.
func smaller(r *dataplane.Ruleset) []*dataplane.Ruleset {
	var all []*dataplane.Ruleset
	with := func(change func(*dataplane.Ruleset)) {
		c := *r
		change(&c)
		all = append(all, &c)
	}
	cut := func(of func(*dataplane.Ruleset) *[]dataplane.FilterRule) {
		for i := range *of(r) {
			with(func(c *dataplane.Ruleset) { *of(c) = slices.Delete(slices.Clone(*of(c)), i, i+1) })
		}
	}
	cut(func(c *dataplane.Ruleset) *[]dataplane.FilterRule { return &c.Input })
	cut(func(c *dataplane.Ruleset) *[]dataplane.FilterRule { return &c.Forward })
	cut(func(c *dataplane.Ruleset) *[]dataplane.FilterRule { return &c.Output })
	for i := range r.Guards {
		with(func(c *dataplane.Ruleset) { c.Guards = slices.Delete(slices.Clone(c.Guards), i, i+1) })
	}
	for i, s := range r.Sets {
		for j := range s.Prefixes {
			with(func(c *dataplane.Ruleset) {
				c.Sets = slices.Clone(c.Sets)
				c.Sets[i].Prefixes = slices.Delete(slices.Clone(s.Prefixes), j, j+1)
			})
		}
	}
	return all
}

func text(r *dataplane.Ruleset) string {
	out, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(out)
}
