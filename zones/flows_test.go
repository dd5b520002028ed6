package zones

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

func (f flows) find(a netip.Addr) int {
	return slices.IndexFunc(f.all, func(c class) bool { return c.spans.contains(a) })
}

func (f flows) allows(p Packet) bool {
	return f.open[pair{f.find(p.From), f.find(p.To)}].covers(portsOf([]api.PortRange{p.Port}))
}

func TestFlowsMeanWhatDecideSays(t *testing.T) {
	relayed := 0
	for seed := range uint64(400) {
		c := newChance(seed)
		p, s := c.policy(), c.state()
		v := Bind(p, s, someTime)
		paths := []path{{}}
		for _, z := range v.zones {
			paths = append(paths, path{z})
		}
		for _, way := range paths {
			f := v.flows(v.classes(), "", way)
			for range 25 {
				packet := c.packet()
				packet.Hook = v.hookOf(packet.From, packet.To)
				if way.via != "" {
					packet.Hook, packet.Node = Forward, api.Node{Name: "relay", Addresses: []netip.Addr{c.addr()}}
					if !slices.Equal(v.zonesOf(packet.Node.Addresses[0]), []string{way.via}) {
						continue
					}
					relayed++
				}
				if got, want := f.allows(packet), v.Decide(packet); got != (want.Verdict == api.Allow) {
					t.Fatalf("seed %d: %s → %s %s at %s via %q: the flows say %t, Decide %+v\npolicy %s\nstate %s", seed, packet.From, packet.To, packet.Port, packet.Hook, way.via, got, want, show(p), show(s))
				}
			}
		}
	}
	if relayed < 300 {
		t.Errorf("only %d packets were passed on", relayed)
	}
}

func TestClassesPartAllAddresses(t *testing.T) {
	for seed := range uint64(200) {
		c := newChance(seed)
		regions := map[string]space{}
		for _, key := range names("a", "b", "c", "d") {
			regions[key] = spaceOf([]netip.Prefix{c.prefix(), c.prefix(), c.prefix()})
		}
		regions["all"], regions["none"] = everywhere(), nil
		all := classify(regions)
		var sum space
		for i, class := range all.all {
			if overlap := sum.intersect(class.spans); len(overlap) > 0 {
				t.Fatalf("seed %d: class %d shares %v", seed, i, overlap)
			}
			sum = sum.union(class.spans)
			for key, region := range regions {
				part := class.spans.intersect(region)
				if in := class.in(key); in && !slices.Equal(part, class.spans) || !in && len(part) > 0 {
					t.Fatalf("seed %d: class %v is in %s: %t, which has %v", seed, class.spans, key, in, part)
				}
			}
		}
		if !slices.Equal(sum, everywhere()) {
			t.Fatalf("seed %d: the classes make up %v", seed, sum)
		}
	}
}
