package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

func named(names ...string) (all []api.Node) {
	for _, n := range names {
		all = append(all, api.Node{Name: n})
	}
	return all
}

func many(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	return names
}

func web() api.ContainerNetwork {
	return api.ContainerNetwork{Name: "web", Range: netip.MustParsePrefix("10.128.0.0/16"), Range6: netip.MustParsePrefix("fd01:b::/64")}
}

// check tells what is wrong with subnets.
func check(t *testing.T, networks []api.ContainerNetwork, all []api.Subnet) {
	t.Helper()
	seen := map[netip.Prefix]string{}
	for _, s := range all {
		i := slices.IndexFunc(networks, func(n api.ContainerNetwork) bool { return n.Name == s.Network })
		for _, one := range []struct{ part, whole netip.Prefix }{{s.V4, networks[i].Range}, {s.V6, networks[i].Range6}} {
			if !one.part.IsValid() {
				continue
			}
			if one.part != one.part.Masked() || !one.whole.Contains(one.part.Addr()) {
				t.Errorf("%s is no subnet of %s", one.part, one.whole)
			}
			if by, given := seen[one.part]; given {
				t.Errorf("%s is of %s and of %s/%s", one.part, by, s.Network, s.Node)
			}
			seen[one.part] = s.Network + "/" + s.Node
		}
	}
}

func TestNodesKeepTheirSubnetsWhileOthersComeAndGo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	networks := []api.ContainerNetwork{web(), {Name: "db", Range: netip.MustParsePrefix("10.129.0.0/22"), NodeBits: 26}}
	names := many(16)
	var old []api.Subnet
	for range 200 {
		var here []string
		for _, n := range names {
			if random.IntN(3) > 0 {
				here = append(here, n)
			}
		}
		random.Shuffle(len(here), func(i, j int) { here[i], here[j] = here[j], here[i] })
		random.Shuffle(len(networks), func(i, j int) { networks[i], networks[j] = networks[j], networks[i] })
		now, err := Allot(networks, named(here...), old)
		if err != nil || len(now) != 2*len(here) {
			t.Fatalf("%d subnets for %d nodes: %v", len(now), len(here), err)
		}
		check(t, networks, now)
		for _, was := range old {
			i := slices.IndexFunc(now, func(s api.Subnet) bool { return s.Network == was.Network && s.Node == was.Node })
			if i >= 0 && now[i] != was {
				t.Fatalf("%v has become %v", was, now[i])
			}
		}
		old = now
	}
}

func TestARangeIsUsedToItsEndAndWhatIsReturnedAgain(t *testing.T) {
	networks := []api.ContainerNetwork{{Name: "db", Range: netip.MustParsePrefix("10.0.0.0/22")}}
	all, err := Allot(networks, named(many(5)...), nil)
	if !errors.Is(err, ErrFull) || len(all) != 4 {
		t.Fatalf("%d of 4 subnets, %v", len(all), err)
	}
	check(t, networks, all)
	gone := all[0].Node
	next, err := Allot(networks, named(slices.DeleteFunc(many(5), func(n string) bool { return n == gone })...), all)
	if err != nil || len(next) != 4 {
		t.Errorf("after %s has gone: %v, %v", gone, next, err)
	}
	check(t, networks, next)
}

func TestAChangedRangeGivesNewSubnets(t *testing.T) {
	n := web()
	old, _ := Allot([]api.ContainerNetwork{n}, named("a", "b"), nil)
	n.NodeBits, n.Range6 = 26, netip.Prefix{}
	now, err := Allot([]api.ContainerNetwork{n}, named("a", "b"), old)
	if err != nil {
		t.Fatal(err)
	}
	check(t, []api.ContainerNetwork{n}, now)
	for _, s := range now {
		if s.V4.Bits() != 26 || s.V6.IsValid() {
			t.Errorf("%+v", s)
		}
	}
}

func TestOldNonsenseIsPassedOver(t *testing.T) {
	same := netip.MustParsePrefix("10.128.7.0/24")
	old := []api.Subnet{
		{Network: "web", Node: "a", V4: same}, {Network: "web", Node: "b", V4: same},
		{Network: "web", Node: "c", V4: netip.MustParsePrefix("10.128.9.9/24")}, {Network: "web", Node: "d", V4: netip.MustParsePrefix("10.7.0.0/24")},
	}
	now, err := Allot([]api.ContainerNetwork{web()}, named("a", "b", "c", "d"), old)
	if err != nil {
		t.Fatal(err)
	}
	check(t, []api.ContainerNetwork{web()}, now)
	if now[0].V4 != same {
		t.Errorf("the first has lost its own: %v", now[0])
	}
}

func BenchmarkAllot(b *testing.B) {
	networks := []api.ContainerNetwork{{Name: "web", Range: netip.MustParsePrefix("10.0.0.0/8"), NodeBits: 24, Range6: netip.MustParsePrefix("fd01:b::/64")}}
	nodes := named(many(5000)...)
	old, err := Allot(networks, nodes, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Allot(networks, nodes, old); err != nil {
			b.Fatal(err)
		}
	}
}
