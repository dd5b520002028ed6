package iptables

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/filtertest"
)

// each runs a test with each variant, on the node of a network of its own.
func each(t *testing.T, test func(t *testing.T, n *filtertest.Net, f *Filter)) {
	for _, variant := range []string{"legacy", "nft"} {
		if _, err := exec.LookPath("iptables-" + variant); err != nil {
			continue
		}
		t.Run(variant, func(t *testing.T) {
			n := filtertest.NewNet(t)
			f, err := New(Options{NetNS: int(n.Node.NS), Variant: variant})
			if err != nil {
				t.Fatal(err)
			}
			test(t, n, f)
		})
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func ruleset() *dataplane.Ruleset {
	ports := []api.PortRange{{Protocol: "tcp", First: 80, Last: 80}}
	return &dataplane.Ruleset{
		Sets: []dataplane.AddressSet{
			{Name: "some", Prefixes: prefixes("10.1.0.0/30", "10.1.0.9/32", "fd01::/64")},
			{Name: "zoned", Prefixes: prefixes("0.0.0.0/0", "::/0")},
		},
		Dynamic: []dataplane.DynamicSet{{Name: "names"}},
		Zoned:   "zoned", Inside: "some",
		Input:   []dataplane.FilterRule{{Name: "web", From: "some", Ports: ports}, {Name: "a \"quoted\" name", From: "some", Ports: ports, Deny: true}},
		Forward: []dataplane.FilterRule{{Name: "web", From: "some", Ports: ports, Log: true}},
		Output:  []dataplane.FilterRule{{Name: "names", To: "names", Ports: ports}},
		Guards:  []dataplane.Guard{{Name: "g", Sources: "some", Interfaces: []string{"left", "eth*"}}},
	}
}

// rules is all that iptables and ipset hold in the node, without counters.
func rules(n *filtertest.Net, f *Filter) string {
	var kept []string
	for _, out := range []string{
		n.Node.Run(f.commands.name(false, "save")), n.Node.Run(f.commands.name(true, "save")), n.Node.Run("ipset", "list"),
	} {
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "Header") && !strings.HasPrefix(line, "Size") && !strings.HasPrefix(line, ":") &&
				!strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "COMMIT") { // tables come with their first rule, and stay
				kept = append(kept, line)
			}
		}
	}
	return strings.Join(kept, "")
}

func TestForeignChangesAreRepairedAndCounted(t *testing.T) {
	each(t, func(t *testing.T, n *filtertest.Net, f *Filter) {
		set := func(r *dataplane.Ruleset) dataplane.Changes {
			t.Helper()
			c, err := f.Set(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		set(ruleset())
		want := rules(n, f)
		iptables := f.commands.name(false, "")
		for _, command := range []string{
			iptables + " -w -F INPUT", iptables + " -w -F", iptables + " -w -F WEIR-INPUT", iptables + " -w -I INPUT -j ACCEPT",
			iptables + " -w -I WEIR-FORWARD -j RETURN", iptables + " -w -t mangle -F", iptables + " -w -D WEIR-INPUT 3",
			f.commands.name(true, "") + " -w -F", "ipset flush weir4-some", "ipset add weir6-some fd02::1",
			iptables + " -w -N WEIR-FOREIGN",
		} {
			foreign := command == iptables+" -w -I INPUT -j ACCEPT"
			n.Node.Run(strings.Fields(command)...)
			if c := set(ruleset()); c.Repaired == 0 || c.Written != 0 || c.Removed != 0 {
				t.Errorf("%s: %+v, want repairs and no other change", command, c)
			}
			if c := set(ruleset()); c != (dataplane.Changes{}) {
				t.Errorf("%s: after the repair Set still changes %+v", command, c)
			}
			if foreign {
				n.Node.Run(iptables, "-w", "-D", "INPUT", "-j", "ACCEPT")
			}
			if got := rules(n, f); got != want && !sorted(got, want) {
				t.Errorf("%s: after the repair the rules are\n%s\nwant\n%s", command, got, want)
			}
		}
	})
}

// sorted tells whether both have the same lines: ipset keeps no order.
func sorted(a, b string) bool {
	count := map[string]int{}
	for line := range strings.Lines(a) {
		count[line]++
	}
	for line := range strings.Lines(b) {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestForeignRulesAreLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, n *filtertest.Net, f *Filter) {
		iptables := f.commands.name(false, "")
		for _, command := range []string{
			iptables + " -w -N DOCKER-USER", iptables + " -w -A FORWARD -j DOCKER-USER", iptables + " -w -t nat -A PREROUTING -p tcp --dport 8080 -j RETURN",
			iptables + " -w -A INPUT -p tcp --dport 22 -j ACCEPT", "ipset create foreign hash:ip", "ipset add foreign 192.0.2.1",
		} {
			n.Node.Run(strings.Fields(command)...)
		}
		before := rules(n, f)
		if _, err := f.Set(t.Context(), ruleset()); err != nil {
			t.Fatal(err)
		}
		n.Node.Run(iptables, "-w", "-C", "FORWARD", "-j", "DOCKER-USER")
		found := false
		err := n.Node.Do(func() (err error) {
			found, err = Cleanup(context.Background())
			return err
		})
		if err != nil || !found {
			t.Errorf("cleanup: found %v, %v", found, err)
		}
		if after := rules(n, f); after != before {
			t.Errorf("cleanup left\n%s\nbefore:\n%s", after, before)
		}
	})
}

func TestNewMemberChangesElementsAlone(t *testing.T) {
	each(t, func(t *testing.T, n *filtertest.Net, f *Filter) {
		if _, err := f.Set(t.Context(), ruleset()); err != nil {
			t.Fatal(err)
		}
		before := n.Node.Run(f.commands.name(false, "save"))
		r := ruleset()
		r.Sets[0].Prefixes = append(r.Sets[0].Prefixes, prefixes("10.9.0.0/16")...)
		c, err := f.Set(t.Context(), r)
		if err != nil || c != (dataplane.Changes{Written: 1}) {
			t.Errorf("a new member: %+v, %v, want 1 written", c, err)
		}
		if after := n.Node.Run(f.commands.name(false, "save")); stamps(after) != stamps(before) {
			t.Errorf("rules changed:\n%s\nbefore:\n%s", after, before)
		}
		n.Node.Run("ipset", "test", "weir4-some", "10.9.1.1")
	})
}

// stamps takes out the lines that have the time.
func stamps(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestSupported(t *testing.T) {
	each(t, func(t *testing.T, n *filtertest.Net, f *Filter) {
		before := rules(n, f)
		err := n.Node.Do(func() error { return Supported(context.Background(), f.options.Variant) })
		if err != nil {
			t.Error(err)
		}
		if after := rules(n, f); after != before {
			t.Errorf("the attempt left\n%s", after)
		}
	})
}

func TestWhatCannotBeDoneNamesTheRule(t *testing.T) {
	each(t, func(t *testing.T, n *filtertest.Net, f *Filter) {
		r := ruleset()
		r.Input[0].Rate = 2_000_000
		if _, err := f.Set(t.Context(), r); err == nil || !strings.Contains(err.Error(), "rule web") {
			t.Errorf("a rate that is too high: %v", err)
		}
		r.Input[0].Rate, r.Input[0].Name = 0, "two\nlines"
		if _, err := f.Set(t.Context(), r); err == nil || !strings.Contains(err.Error(), "cannot be a comment") {
			t.Errorf("a name of two lines: %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Variant: "new"}, {NetNS: -1}, {VerifyEvery: -time.Second}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestSetNamesFit(t *testing.T) {
	long := strings.Repeat("x", 29)
	a, b := setName(long, false), setName(long[:28]+"y", false)
	if a == b || len(twin(a)) > 31 || twin(twin(a)) != a {
		t.Errorf("%s and %s, with twin %s", a, b, twin(a))
	}
	if got := setName("some-set-of-22-letters", true); got != "weir6-some-set-of-22-letters" {
		t.Errorf("got %s", got)
	}
}
