package zones

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

// little is every address of the small world that random spaces are in.
func little() (all []netip.Addr) {
	for i := range 48 {
		all = append(all, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}))
	}
	return append(all, addrs("0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")...)
}

func TestSpacesAreSets(t *testing.T) {
	for seed := range uint64(500) {
		c := newChance(seed)
		random := func() space {
			s := spaceOf([]netip.Prefix{c.prefix(), c.prefix(), c.prefix()})
			if c.IntN(5) == 0 {
				s = everywhere().subtract(s)
			}
			return s
		}
		a, b := random(), random()
		union, intersection, difference, again := a.union(b), a.intersect(b), a.subtract(b), spaceOf(a.prefixes())
		for _, x := range little() {
			for what, pair := range map[string][2]bool{
				"union":        {union.contains(x), a.contains(x) || b.contains(x)},
				"intersection": {intersection.contains(x), a.contains(x) && b.contains(x)},
				"difference":   {difference.contains(x), a.contains(x) && !b.contains(x)},
				"prefixes":     {again.contains(x), a.contains(x)},
			} {
				if pair[0] != pair[1] {
					t.Fatalf("seed %d: %s of %v and %v has %s: %t", seed, what, a, b, x, pair[0])
				}
			}
		}
		if !slices.Equal(again, a) {
			t.Fatalf("seed %d: %v became %v", seed, a, a.prefixes())
		}
	}
}

func TestSpacesAreShort(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"10.0.0.1/32 10.0.0.1/32", "10.0.0.1/32"},
		{"10.0.0.0/8 10.1.2.3/32 9.0.0.0/8", "9.0.0.0/8 10.0.0.0/8"},
		{"10.0.0.0/32 10.0.0.1/32 10.0.0.2/31", "10.0.0.0/30"},
		{"10.0.0.1/32 10.0.0.2/32", "10.0.0.1/32 10.0.0.2/32"},
		{"::/1 8000::/1 128.0.0.0/1 0.0.0.0/1", "0.0.0.0/0 ::/0"},
		{"fd00::/64 10.0.0.0/8 fd00::1/128", "10.0.0.0/8 fd00::/64"},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8"},
	} {
		var got []string
		for _, p := range spaceOf(prefixes(strings.Fields(c.in)...)).prefixes() {
			got = append(got, p.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%q: got %q, want %q", c.in, text, c.want)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, c := range []struct{ in, but, want string }{
		{"tcp/80 tcp/81-90 udp/53", "", "tcp/80-90 udp/53"},
		{"any", "tcp/22", "tcp/1-21 tcp/23-65535 udp icmp other"},
		{"tcp", "tcp/1-65535", ""},
		{"tcp udp icmp", "icmp", "tcp udp"},
		{"any", "any", ""},
		{"tcp/1-10", "udp", "tcp/1-10"},
	} {
		read := func(text string) portSpace {
			var all portSpace
			for _, w := range strings.Fields(text) {
				all = all.union(portsOf([]api.PortRange{port(w)}))
			}
			return all
		}
		var got []string
		for _, r := range read(c.in).subtract(read(c.but)).ranges() {
			got = append(got, r.String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s but %s: got %q, want %q", c.in, c.but, text, c.want)
		}
	}
}
