package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane"
)

func example() *dataplane.Ruleset {
	return ruleset(
		[]dataplane.FilterRule{allow("web", "client", "node", "tcp/80", "tcp/443", "udp/53", "icmp"), allow("ops", "", "node", "tcp/22")},
		[]dataplane.FilterRule{allow("deep", "client", "server", "any")})
}

func TestSetWritesNothingWhenNothingChanged(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	if c := apply(t, f, example()); c.Written == 0 || c.Removed != 0 || c.Repaired != 0 {
		t.Errorf("first Set: %+v, want only written objects", c)
	}
	before := s.nft("-a", "list", "ruleset") // with handles, which a rewrite changes
	for _, again := range []*Filter{f, s.filter(Enforce)} {
		if c := apply(t, again, example()); c != (dataplane.Changes{}) {
			t.Errorf("Set of the same: %+v, want no change", c)
		}
	}
	if after := s.nft("-a", "list", "ruleset"); after != before {
		t.Errorf("the rules were rewritten:\n%s\nbefore:\n%s", after, before)
	}
}

func TestNewMemberChangesElementsAlone(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	apply(t, f, example())
	handles := func() string { return s.nft("-a", "-t", "list", "ruleset") } // without elements
	before := handles()
	r := example()
	r.Sets[0].Prefixes = prefixes(client4+"/32", "10.1.0.128/25", client6+"/128")
	// The client's set, and that of all zones.
	if c := apply(t, f, zoned(r)); c != (dataplane.Changes{Written: 2}) {
		t.Errorf("a new member: %+v, want 2 written", c)
	}
	if after := handles(); after != before {
		t.Errorf("more than elements changed:\n%s\nbefore:\n%s", after, before)
	}
	if got := s.nft("list", "set", "inet", "weir", "client_4"); !strings.Contains(got, "10.1.0.128/25") {
		t.Errorf("the set is\n%s", got)
	}
	if c := apply(t, f, example()); c != (dataplane.Changes{Removed: 2}) {
		t.Errorf("a member gone: %+v, want 2 removed", c)
	}
}

func TestForeignChangesAreRepairedAndCounted(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	apply(t, f, example())
	want := s.nft("list", "ruleset")
	handle := func(chain string) string { // of its last rule
		out := strings.TrimSpace(s.nft("-a", "list", "chain", "inet", "weir", chain))
		_, out, _ = strings.Cut(out[strings.LastIndex(out, "comment"):], "# handle ")
		return strings.Fields(out)[0]
	}
	for _, c := range []struct {
		name    string
		command []string
		least   int
	}{
		{"flushed ruleset", []string{"flush", "ruleset"}, 30},
		{"deleted table", []string{"delete", "table", "inet", "weir"}, 30},
		{"flushed table", []string{"flush", "table", "inet", "weir"}, 20},
		{"flushed chain", []string{"flush", "chain", "inet", "weir", "forward"}, 5},
		{"emptied set", []string{"flush", "set", "inet", "weir", "client_4"}, 1},
		{"added element", []string{"add", "element", "inet", "weir", "client_4", "{ 10.1.0.10 }"}, 1},
		{"added rule", []string{"insert", "rule", "inet", "weir", "input", "accept"}, 1},
		{"deleted rule", []string{"delete", "rule", "inet", "weir", "input", "handle", "?"}, 1},
		{"edited rule", []string{"replace", "rule", "inet", "weir", "input", "handle", "?", "counter", "accept", "comment", `"default-deny"`}, 1},
		{"opened policy", []string{"chain", "inet", "weir", "input", "{ policy accept; }"}, 1},
		{"sleeping table", []string{"add", "table", "inet", "weir", "{ flags dormant; }"}, 1},
		{"foreign chain", []string{"add", "chain", "inet", "weir", "mine", "{ type filter hook input priority 0; policy drop; }"}, 1},
		{"foreign set", []string{"add", "set", "inet", "weir", "mine", "{ type inet_service; }"}, 1},
		{"foreign set of ours", []string{"add", "set", "inet", "weir", "mine", "{ type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }"}, 1},
	} {
		command := c.command
		for i, word := range command {
			if word == "?" {
				command[i] = handle("input")
			}
		}
		s.nft(command...)
		changes := apply(t, f, example())
		if changes.Repaired < c.least || changes.Written != 0 || changes.Removed != 0 {
			t.Errorf("%s: %+v, want %d repaired or more, and no other change", c.name, changes, c.least)
		}
		if got := s.nft("list", "ruleset"); got != want {
			t.Errorf("%s: after the repair the rules are\n%s\nwant\n%s", c.name, got, want)
		}
		if changes := apply(t, f, example()); changes != (dataplane.Changes{}) {
			t.Errorf("%s: after the repair Set still changes %+v", c.name, changes)
		}
	}
}

func TestAForeignChangeThatIsSeenTooEarlyIsRepairedLater(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	apply(t, f, example())
	f.every = time.Hour // nothing is read back soon after it was
	s.nft("delete", "table", "inet", "weir")
	if c := apply(t, f, example()); c != (dataplane.Changes{}) {
		t.Errorf("it was read back too early: %+v", c)
	}
	f.every = 0
	if c := apply(t, f, example()); c.Repaired == 0 {
		t.Errorf("got %+v, want a repair", c)
	}
}

func TestForeignTablesAreLeftAlone(t *testing.T) {
	s := newSpace(t)
	s.nft(`table inet other { chain input { type filter hook input priority 0; policy accept; counter; }; }
		table ip weir { set client_4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }; }`)
	before := s.nft("-a", "list", "ruleset")
	f := s.filter(Enforce)
	if s.cleanup() {
		t.Error("cleanup found a table before there was one")
	}
	apply(t, f, example())
	r := example()
	r.Input = r.Input[1:]
	apply(t, f, r)
	if !s.cleanup() {
		t.Error("cleanup found no table")
	}
	if after := s.nft("-a", "list", "ruleset"); after != before {
		t.Errorf("other tables changed:\n%s\nbefore:\n%s", after, before)
	}
	apply(t, f, example())
	if c := apply(t, f, nil); c.Removed == 0 {
		t.Errorf("Set of nil: %+v, want everything removed", c)
	}
	if after := s.nft("-a", "list", "ruleset"); after != before {
		t.Errorf("after Set of nil:\n%s\nbefore:\n%s", after, before)
	}
}

func TestCountersSurviveAChange(t *testing.T) {
	n := newNet3(t)
	n.node.serve(22)
	f := n.node.filter(Enforce)
	apply(t, f, example())
	n.client.passes(node4, "tcp/22")
	r := example()
	r.Input = append(r.Input, allow("new", "server", "node", "tcp/99"))
	apply(t, f, r)
	n.client.passes(node6, "tcp/22")
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got := counters["ops"].Packets; got != 2 {
		t.Errorf("rule ops counted %d flows over a change, want 2", got)
	}
}

// The child process of TestRulesStayWhenTheProcessIsGone.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_TEST_SET_AND_DIE") == "" {
		os.Exit(m.Run())
	}
	f, err := New(Options{NetNS: 3})
	if err == nil {
		_, err = f.Set(context.Background(), example())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	self, _ := os.FindProcess(os.Getpid())
	self.Kill()
	time.Sleep(time.Minute)
}

func TestRulesStayWhenTheProcessIsGone(t *testing.T) {
	n := newNet3(t)
	n.node.serve(22, 23)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "WEIR_TEST_SET_AND_DIE=1")
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(n.node.dup()), "netns")}
	defer child.ExtraFiles[0].Close()
	out, err := child.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("child: %v, %s; want it killed", err, out)
	}
	n.client.passes(node4, "tcp/22")
	n.client.closed(node4, "tcp/23")
	if c := apply(t, n.node.filter(Enforce), example()); c != (dataplane.Changes{}) {
		t.Errorf("the next process changes %+v, want to find all as it should be", c)
	}
}

// manyHosts are n single addresses of either family that cannot be joined.
func manyHosts(n int) []netip.Prefix {
	var all []netip.Prefix
	for i := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 32))
	}
	for i := range n {
		all = append(all, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1: 9, 12: 0, 13: byte(i >> 15), 14: byte(i >> 7), 15: byte(i << 1)}), 128))
	}
	return all
}

func TestLargeSets(t *testing.T) {
	n := newNet3(t)
	n.node.serve(80)
	f := n.node.filter(Enforce)
	r := example()
	const hosts = 50_000
	r.Sets[0].Prefixes = append(manyHosts(hosts), prefixes(client4+"/32")...)
	start := time.Now()
	apply(t, f, r)
	t.Logf("%d addresses set in %v", 2*hosts, time.Since(start))
	n.client.passes(node4, "tcp/80")
	n.client.closed(node6, "tcp/80")
	start = time.Now()
	if c := apply(t, f, r); c != (dataplane.Changes{}) {
		t.Errorf("Set of the same: %+v", c)
	}
	t.Logf("compared in %v", time.Since(start))
	start = time.Now()
	if c := apply(t, n.node.filter(Enforce), r); c != (dataplane.Changes{}) {
		t.Errorf("first Set of another process: %+v", c)
	}
	t.Logf("read from the kernel and compared in %v", time.Since(start))
}

func TestManyRules(t *testing.T) {
	s := newSpace(t)
	f := s.filter(Enforce)
	r := example()
	for i := range 250 {
		r.Input = append(r.Input, allow(fmt.Sprint("rule-", i), "client", "node", fmt.Sprintf("tcp/%d", i+1), "udp/7-9", "udp/53"))
	}
	apply(t, f, r)
	if c := apply(t, f, r); c != (dataplane.Changes{}) {
		t.Errorf("Set of the same: %+v", c)
	}
}

func TestSupported(t *testing.T) {
	s := newSpace(t)
	if err := s.do(Supported); err != nil {
		t.Error(err)
	}
	if got := s.nft("list", "ruleset"); got != "" {
		t.Errorf("the attempt left\n%s", got)
	}
}

func TestWrongInputIsRefused(t *testing.T) {
	if _, err := New(Options{Mode: "loud"}); err == nil || !strings.Contains(err.Error(), `mode: "loud" is not one of`) {
		t.Errorf("unknown mode: %v", err)
	}
	s := newSpace(t)
	f := s.filter(Enforce)
	for name, r := range map[string]*dataplane.Ruleset{
		`there is no address set "nowhere"`: ruleset([]dataplane.FilterRule{allow("x", "nowhere", "", "any")}, nil),
		`the name is taken`:                 {Sets: []dataplane.AddressSet{{Name: "a"}, {Name: "a"}}},
		`is not a prefix`:                   {Sets: []dataplane.AddressSet{{Name: "a", Prefixes: make([]netip.Prefix, 1)}}},
	} {
		if _, err := f.Set(t.Context(), r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want an error with %q", err, name)
		}
	}
	if got := s.nft("list", "ruleset"); got != "" {
		t.Errorf("a refused ruleset left\n%s", got)
	}
}
