package dnsproxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// TestTheNamesOfNodesThatDCOSHasAnswer goes through those that clients of Mesos
// and DC/OS ask for.
func TestTheNamesOfNodesThatDCOSHasAnswer(t *testing.T) {
	node := func(name, role, address string) api.Node {
		return api.Node{Name: name, Role: role, Addresses: []netip.Addr{netip.MustParseAddr(address)}}
	}
	s := &api.Snapshot{Revision: 1, Nodes: []api.Node{node("a1", "", "10.80.0.11"), node("c1", api.RoleController, "10.80.0.2"), node("c2", api.RoleController, "10.80.0.3")}}
	s.Node = s.Nodes[0]
	p, err := New(ServerOptions{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	table, err := Compile(s, Options{Domain: "weir.internal", Aliases: []string{"mesos"}, DCOS: true})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(table)
	for question, want := range map[string]string{
		"leader.mesos A":                   "10.80.0.2 10.80.0.3",
		"master.mesos A":                   "10.80.0.2 10.80.0.3",
		"master0.mesos A":                  "10.80.0.2",
		"master1.weir.internal A":          "10.80.0.3",
		"master2.mesos A":                  "",
		"slave.mesos A":                    "10.80.0.11",
		"agent.weir.internal A":            "10.80.0.11",
		"_leader._tcp.mesos SRV":           "8443 leader.mesos.",
		"thisnode.thisdcos.directory A":    "10.80.0.11",
		"leader.dcos.thisdcos.directory A": "10.80.0.2 10.80.0.3",
		"zk-1.zk A":                        "10.80.0.2",
		"zk-5.zk A":                        "10.80.0.2",
		"ready.spartan A":                  "127.0.0.1",
	} {
		name, rtype, _ := strings.Cut(question, " ")
		a, err := p.Query(t.Context(), name, rtype)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Fields(want) {
			if !strings.Contains(strings.Join(a.Answer, "\n"), part) {
				t.Errorf("%s: got %v, want %s", question, a.Answer, want)
			}
		}
		if want == "" && a.Rcode != dns.RcodeToString[dns.RcodeNameError] {
			t.Errorf("%s: got %s %v", question, a.Rcode, a.Answer)
		}
	}
}
