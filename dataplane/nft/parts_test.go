package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/dataplane"
)

// A set of single addresses is a hash table until a wide span comes into it; no
// packet is judged otherwise meanwhile.
func TestSetsOfSingleAddressesAreHashTables(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80)
	f := n.node.filter(Enforce)
	r := example()
	r.Sets[0].Prefixes = append(manyHosts(300), prefixes(client4+"/32", client6+"/128")...)
	slices.SortFunc(r.Sets[0].Prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for i := range r.Sets {
		r.Sets[i].Version = 1
	}
	set := func(want bool) {
		t.Helper()
		apply(t, f, r)
		all := n.node.nft("list", "sets")
		if _, text, found := strings.Cut(all, "set client_4"); !found {
			t.Fatalf("there is no set of clients:\n%s", all)
		} else if text, _, _ = strings.Cut(text, "}"); strings.Contains(text, "interval") == want {
			t.Errorf("hash table %t, want %t:\n%s", !want, want, text)
		}
		n.client.passes(node4, "tcp/80")
		n.client.passes(node6, "tcp/80")
		n.server.closed(node4, "tcp/80")
		if c := apply(t, f, r); c != (dataplane.Changes{}) {
			t.Errorf("Set of the same: %+v", c)
		}
	}
	add := func(text string) {
		s := &r.Sets[0]
		added := prefixes(text)
		s.Delta = &dataplane.SetDelta{From: s.Version, Added: added}
		s.Prefixes, s.Version = append(slices.Clone(s.Prefixes), added...), s.Version+1
		slices.SortFunc(s.Prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	}
	set(true)
	add("172.20.0.0/26") // more than a fresh one would have
	set(true)
	add("172.21.0.0/16")
	set(false)
	if c := apply(t, n.node.filter(Enforce), r); c != (dataplane.Changes{}) {
		t.Errorf("the next process changes %+v", c)
	}
}

func TestListsShareWhatDoesNotChange(t *testing.T) {
	all, err := spans(manyHosts(5000), false)
	if err != nil {
		t.Fatal(err)
	}
	old := listOf(all)
	region := span{first: all[2000].first, last: all[2000].last}
	now, stale, fresh := old.renew([]span{region}, func([]span, span) []span { return nil })
	if len(stale) != 1 || len(fresh) != 0 || len(now.flat()) != len(all)-1 {
		t.Fatalf("%d gone, %d came, %d of %d left", len(stale), len(fresh), len(now.flat()), len(all))
	}
	shared := 0
	for _, piece := range now {
		if slices.ContainsFunc(old, func(o []span) bool { return &o[0] == &piece[0] && len(o) == len(piece) }) {
			shared++
		}
	}
	if shared < len(old)-4 {
		t.Errorf("only %d of %d pieces are shared", shared, len(old))
	}
}
