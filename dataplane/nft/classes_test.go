package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/dataplane"
)

// Classes are kept in the packet's mark for some instructions: marks of others
// stay, and none is left behind.
func TestMarksOfOthersStay(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80, 81)
	r := policy(20, 60, 40)
	r.Input = r.Forward
	apply(t, n.node.filter(Enforce), r)
	n.node.nft(`table inet other {
		chain early { type filter hook prerouting priority -300; tcp dport 81 meta mark set 0x5; tcp dport 80 ip6 version 6 meta mark set 0x5; };
		chain late { type filter hook input priority 10;
			ct state new meta mark 0x5 counter comment "kept"; ct state new meta mark != 0 meta mark != 0x5 counter comment "left"; }; }`)
	n.client.passes(node4, "tcp/80")
	n.client.passes(node6, "tcp/80") // by all rules
	n.client.closed(node4, "tcp/81")
	n.client.closed(node6, "tcp/81")
	n.server.closed(node4, "tcp/80")
	got := n.node.nft("list", "chain", "inet", "other", "late")
	if !strings.Contains(got, `meta mark 0x00000005 counter packets 1 `) || strings.Count(got, "packets 0 ") != 1 {
		t.Errorf("marks seen behind our rules:\n%s", got)
	}
}

// What deltas make is what the whole makes.
func TestClassesByDeltaAreThoseOfTheWhole(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		ruleset := policy(15, 60, 30)
		last := &newBuilder(ruleset, Enforce, nil).build
		for step := range 30 {
			next := *ruleset
			next.Sets = slices.Clone(ruleset.Sets)
			for range 1 + r.IntN(3) {
				change(r, &next.Sets[r.IntN(15)])
			}
			whole := next
			whole.Sets = slices.Clone(next.Sets)
			for i := range whole.Sets {
				whole.Sets[i].Delta = nil
			}
			b, want := newBuilder(&next, Enforce, last), newBuilder(&whole, Enforce, nil)
			if b.err != nil || want.err != nil {
				t.Fatal(b.err, want.err)
			}
			for name, s := range want.parts {
				if !slices.Equal(b.parts[name].all(), s.all()) {
					t.Fatalf("seed %d, step %d: %s is\n%v\nwant\n%v", seed, step, name, b.parts[name].all(), s.all())
				}
			}
			for hook, d := range want.hooks {
				if !d.alike(b.hooks[hook]) {
					t.Fatalf("seed %d, step %d: %s has other classes", seed, step, hook)
				}
			}
			ruleset, last = &next, &b.build
		}
	}
}

// change takes prefixes out of a set, puts others in, and says so by a delta.
func change(r *rand.Rand, s *dataplane.AddressSet) {
	delta := &dataplane.SetDelta{From: s.Version}
	if s.Delta != nil && s.Delta.From >= s.Version { // changed in this step already
		return
	}
	old := slices.Clone(s.Prefixes)
	var now []netip.Prefix
	for _, p := range old {
		if r.IntN(4) == 0 {
			delta.Removed = append(delta.Removed, p)
		} else {
			now = append(now, p)
		}
	}
	for range r.IntN(4) {
		p := netip.MustParsePrefix(fmt.Sprintf("11.0.0.%d/%d", r.IntN(64), 28+r.IntN(5))).Masked()
		if r.IntN(3) == 0 {
			p = netip.MustParsePrefix(fmt.Sprintf("fd09::%x/%d", r.IntN(64), 123+r.IntN(6))).Masked()
		}
		if !slices.ContainsFunc(now, p.Overlaps) {
			now, delta.Added = append(now, p), append(delta.Added, p)
		}
	}
	s.Prefixes, s.Version, s.Delta = now, s.Version+1, delta
}

// A field that sameRule does not know would keep old rules in the kernel.
func TestSameRuleKnowsEveryField(t *testing.T) {
	if n := reflect.TypeFor[dataplane.FilterRule]().NumField(); n != 12 {
		t.Errorf("FilterRule has %d fields, sameRule compares 12", n)
	}
}
