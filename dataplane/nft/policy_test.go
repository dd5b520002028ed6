package nft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

var update = flag.Bool("update", false, "write the golden files")

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func policyRule(name string, from, to []string, ports ...string) api.Rule {
	return api.Rule{Name: name, From: from, To: to, Allow: allow("", "", "", ports...).Ports}
}

func names(all ...string) []string { return all }

// fleet and policy are those of the design's example.
func fleet() []api.Node {
	return []api.Node{
		{Name: "a1", Addresses: addrs("10.80.0.11", "fd80::11")},
		{Name: "a2", Addresses: addrs("10.80.0.12")},
		{Name: "c1", Role: api.RoleController, Addresses: addrs("10.80.0.2", "203.0.113.2")},
		{Name: "p1", Role: api.RolePublic, Addresses: addrs("10.80.0.31", "203.0.113.31")},
	}
}

func policy() *api.Policy {
	return &api.Policy{
		Zones: map[string]api.Zone{
			"admin":   {Nodes: &api.NodeSelector{Role: api.RoleController}},
			"private": {Nodes: &api.NodeSelector{Role: api.RoleAgent}},
			"public":  {Nodes: &api.NodeSelector{Role: api.RolePublic}},
			"office":  {CIDRs: prefixes("203.0.113.0/29")},
		},
		Rules: []api.Rule{
			policyRule("ops", names("office"), names("admin"), "tcp/22", "tcp/443"),
			policyRule("edge", names("any"), names("public"), "tcp/80", "tcp/443"),
			policyRule("inner", names("admin", "public", "private"), names("private"), "any"),
		},
	}
}

func TestExamplePolicyInTheKernel(t *testing.T) {
	for _, self := range fleet() {
		t.Run(self.Name, func(t *testing.T) {
			s := newSpace(t)
			r, err := zones.Compile(policy(), fleet(), self)
			if err != nil {
				t.Fatal(err)
			}
			set(t, s.filter(Enforce), r)
			got := s.nft("list", "table", "inet", "weir")
			file := filepath.Join("testdata", self.Name+".nft")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the table differs from %s:\n%s", file, got)
			}
		})
	}
}

// world is what the random policies are about: addresses of the client behind
// the node's left, the node's own and those of the server behind it.
type world struct {
	net3
	client, node, server []netip.Addr
}

func newWorld(t testing.TB) world {
	w := world{net3: newNet3(t)}
	for i := range 3 {
		four, six := fmt.Sprintf("10.1.1.%d", i), fmt.Sprintf("fd01::1:%d", i)
		w.net3.client.address("eth0", four+"/32")
		w.net3.client.address("eth0", six+"/128")
		w.client = append(w.client, addrs(four, six)...)
		four, six = fmt.Sprintf("10.2.1.%d", i), fmt.Sprintf("fd02::1:%d", i)
		w.net3.server.address("eth0", four+"/32")
		w.net3.server.address("eth0", six+"/128")
		w.server = append(w.server, addrs(four, six)...)
	}
	w.node = addrs(node4, node6, "10.2.0.1", "fd02::1")
	w.net3.node.serve(testPorts...)
	w.net3.server.serve(testPorts...)
	return w
}

var testPorts = []int{80, 81, 8000}

// policy makes up zones, nodes and rules. Every server address is in a zone:
// where no end is in one, nodes let pass what Decide does not know about.
func (w world) policy(r *rand.Rand) (*api.Policy, []api.Node) {
	nodes := []api.Node{{Name: "node", Addresses: w.node, Attributes: map[string]string{"k": "a"}}}
	p := &api.Policy{Zones: map[string]api.Zone{
		"servers": {CIDRs: prefixes("10.2.1.0/24", "fd02::/64")},
		"empty":   {Nodes: &api.NodeSelector{Role: "none"}},
	}}
	for i, a := range append(w.client, w.server...) {
		nodes = append(nodes, api.Node{
			Name: fmt.Sprint("n", i), Addresses: []netip.Addr{a}, Attributes: map[string]string{"k": string(rune('a' + r.IntN(3)))},
		})
	}
	for _, k := range []string{"a", "b", "c"} {
		p.Zones["zone-"+k] = api.Zone{Nodes: &api.NodeSelector{Attributes: map[string]string{"k": k}}}
	}
	p.Zones["part"] = api.Zone{CIDRs: prefixes(fmt.Sprintf("10.%d.1.0/31", 1+r.IntN(2)), fmt.Sprintf("fd0%d::/111", 1+r.IntN(2)))}
	all := names("zone-a", "zone-b", "zone-c", "part", "servers", "empty", "any")
	pick := func() (some []string) {
		for range 1 + r.IntN(2) {
			some = append(some, all[r.IntN(len(all))])
		}
		return some
	}
	ports := names("tcp/80", "tcp/80-81", "udp/8000", "udp/81-8000", "icmp", "tcp", "udp", "any", "tcp/81")
	for i := range 1 + r.IntN(4) {
		p.Rules = append(p.Rules, policyRule(fmt.Sprint("r", i), pick(), pick(), ports[r.IntN(len(ports))], ports[r.IntN(len(ports)-2)]))
	}
	return p, nodes
}

func TestKernelAgreesWithDecide(t *testing.T) {
	w := newWorld(t)
	f := w.net3.node.filter(Enforce)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 5))
		p, nodes := w.policy(r)
		compiled, err := zones.Compile(p, nodes, nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		set(t, f, compiled)
		w.compare(t, r, p, nodes)
		if t.Failed() {
			t.Fatalf("seed %d, policy %+v", seed, p)
		}
	}
}

// compare sends flows and expects the verdicts of Decide.
func (w world) compare(t *testing.T, r *rand.Rand, p *api.Policy, nodes []api.Node) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for range 24 {
		from := w.client[r.IntN(len(w.client))]
		to := append(w.node, w.server...)[r.IntN(len(w.node)+len(w.server))]
		if from.Is4() != to.Is4() {
			continue
		}
		port := mustPort(names("tcp/80", "tcp/81", "tcp/8000", "udp/80", "udp/81", "udp/8000", "icmp")[r.IntN(7)])
		verdict, rule := zones.Decide(p, nodes, from, to, port)
		patience := passTime
		if verdict == api.Deny {
			patience = dropTime
		}
		wait.Go(func() {
			err := w.net3.client.send(from.String(), to.String(), port, patience)
			if (err == nil) != (verdict == api.Allow) {
				t.Errorf("%s → %s %s: Decide says %s by %q, the kernel %v", from, to, port, verdict, rule, err)
			}
		})
	}
}
