package guard

import (
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/balancertest"
)

func TestNetworksAreWrittenAsDisjointIntervals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var networks []netip.Prefix
		for range r.IntN(6) {
			networks = append(networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(256))}), 24+r.IntN(9)))
		}
		if r.IntN(5) == 0 {
			networks = append(networks, netip.MustParsePrefix("255.255.255.0/24"), netip.MustParsePrefix("ffff::/16"))
		}
		c := newContent()
		c.addNetworks(networks)
		inside := false
		for a := netip.MustParseAddr("10.0.0.0"); a.Compare(netip.MustParseAddr("10.0.2.1")) < 0; a = a.Next() {
			if v, edge := c.sets[networkSet+"4"][string(a.AsSlice())]; edge {
				if inside == (v == "") {
					t.Fatalf("%v: at %s comes %q twice", networks, a, v)
				}
				inside = v == ""
			}
			want := false
			for _, p := range networks {
				want = want || p.Contains(a)
			}
			if inside != want {
				t.Fatalf("%v: %s inside is %t, want %t", networks, a, inside, want)
			}
		}
	}
}

func rules() Rules {
	at := netip.MustParseAddrPort
	return Rules{
		Networks: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("fd77::/112")},
		Frontends: map[Frontend]Verdict{
			{At: at("198.18.0.1:80")}: Open, {At: at("198.18.0.1:53"), UDP: true}: Draining,
			{At: at("192.0.2.1:443")}: Empty, {At: at("[fd77::1]:80")}: Open,
		},
	}
}

func set(t *testing.T, g *Guard, r Rules) dataplane.Changes {
	t.Helper()
	c, err := g.Set(t.Context(), r)
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return c
}

func TestTableIsKeptAsWanted(t *testing.T) {
	if !balancertest.Isolated(t) {
		return
	}
	g := New()
	if c := set(t, g, rules()); c != (dataplane.Changes{Written: 1 + 3 + 4 + 1}) {
		t.Errorf("the first Set: %+v", c)
	}
	for _, again := range []*Guard{g, New()} { // and one that starts anew
		if c := set(t, again, rules()); c != (dataplane.Changes{}) {
			t.Errorf("a Set of the same: %+v", c)
		}
	}
	r := rules()
	delete(r.Frontends, Frontend{At: netip.MustParseAddrPort("192.0.2.1:443")})
	r.Frontends[Frontend{At: netip.MustParseAddrPort("198.18.0.1:53"), UDP: true}] = Open
	r.Networks = r.Networks[:1]
	if c := set(t, g, r); c.Written != 1 || c.Removed != 4 || c.Repaired != 0 {
		t.Errorf("a change: %+v, want 1 verdict written, and 1 frontend, 1 draining mark and 2 networks removed", c)
	}
	if c := set(t, g, r); c != (dataplane.Changes{}) {
		t.Errorf("after the change: %+v", c)
	}
	if found, err := Cleanup(); err != nil || !found {
		t.Errorf("Cleanup: %t, %v", found, err)
	}
	if found, err := Cleanup(); err != nil || found {
		t.Errorf("Cleanup again: %t, %v", found, err)
	}
}

func TestForeignHandsAreRepaired(t *testing.T) {
	if !balancertest.Isolated(t) {
		return
	}
	g := New()
	set(t, g, rules())
	for name, damage := range map[string]func(c *nftables.Conn, t *nftables.Table){
		"table removed": func(c *nftables.Conn, t *nftables.Table) { c.DelTable(t) },
		"rules flushed": func(c *nftables.Conn, t *nftables.Table) { c.FlushTable(t) },
		"chain flushed": func(c *nftables.Conn, t *nftables.Table) {
			c.FlushChain(&nftables.Chain{Table: t, Name: unservedChain})
		},
		"map flushed": func(c *nftables.Conn, t *nftables.Table) {
			c.FlushSet(&nftables.Set{Table: t, Name: frontendMap + "4"})
		},
		"set flushed": func(c *nftables.Conn, t *nftables.Table) { c.FlushSet(&nftables.Set{Table: t, Name: networkSet + "6"}) },
		"rule added": func(c *nftables.Conn, t *nftables.Table) {
			c.InsertRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: judgeChain}})
		},
	} {
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		damage(conn, table())
		if err := conn.Flush(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c := set(t, g, rules()); c.Repaired == 0 || c.Written != 0 || c.Removed != 0 {
			t.Errorf("%s: %+v, want repairs alone", name, c)
		}
		if c := set(t, g, rules()); c != (dataplane.Changes{}) {
			t.Errorf("%s: a second Set did %+v", name, c)
		}
	}
}

func TestTenThousandFrontendsFit(t *testing.T) {
	if !balancertest.Isolated(t) {
		return
	}
	r := rules()
	for i := range 10000 {
		a := netip.AddrFrom16([16]byte{0xfd, 0x77, 14: byte(i >> 8), 15: byte(i)})
		r.Frontends[Frontend{At: netip.AddrPortFrom(a, 80)}] = Open
		r.Networks = append(r.Networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32))
	}
	g := New()
	set(t, g, r)
	if c := set(t, g, r); c != (dataplane.Changes{}) {
		t.Errorf("a second Set did %+v", c)
	}
}

func TestRulesReadAsTheyShould(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	if !balancertest.Isolated(t) {
		return
	}
	set(t, New(), rules())
	out, err := exec.Command("nft", "list", "table", "inet", TableName).CombinedOutput()
	if err != nil {
		t.Fatalf("people cannot list the table: %v %s", err, out)
	}
	t.Logf("%s", out)
	for _, want := range []string{"198.18.0.0/15", "198.18.0.1 . tcp . 80 : return", "192.0.2.1 . tcp . 443 : goto empty", "198.18.0.1 . udp . 53 : goto new-only", "reject with tcp reset",
		"ct original ip daddr @networks4 fib daddr type != local ip saddr @networks4 masquerade", "dnat ip6 to ip6 daddr"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %q", want)
		}
	}
}
