package dnsproxy

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// tasks are one of each kind.
func tasks() []Task {
	node := func(n string) []netip.Addr {
		return map[string][]netip.Addr{"a1": addrs("10.80.0.11", "fd00::11"), "p1": addrs("10.80.0.31")}[n]
	}
	return []Task{
		{ID: "outer_sub_myapp.1", Path: []string{"outer", "sub", "myapp"}, Node: "a1", NodeAddresses: node("a1"), Addresses: addrs("10.81.0.1", "fd01:b::1"),
			Ports: []TaskPort{{Name: "http", Port: 8080}, {Name: "dns", Port: 53, Protocol: api.UDP}}},
		{ID: "outer_sub_myapp.2", Path: []string{"outer", "sub", "myapp"}, Node: "p1", NodeAddresses: node("p1"), Addresses: addrs("10.81.0.2"),
			Ports: []TaskPort{{Name: "http", Port: 8080}, {Name: "dns", Port: 53, Protocol: api.UDP}}},
		{ID: "host.1", Path: []string{"host"}, Node: "a1", NodeAddresses: node("a1"), Ports: []TaskPort{{Name: "http", HostPort: 31007}}},
		{ID: "mapped.1", Path: []string{"mapped"}, Node: "p1", NodeAddresses: node("p1"), Addresses: addrs("10.81.0.3"), Ports: []TaskPort{{Port: 80, HostPort: 31008}}},
		{ID: "broker-0.1", Path: []string{"broker-0"}, Service: "kafka", Node: "p1", NodeAddresses: node("p1"), Ports: []TaskPort{{Name: "broker", HostPort: 9092}}},
		{ID: "host.2", Path: []string{"host"}, Node: "p1", NodeAddresses: node("p1"), Ports: []TaskPort{{Name: "http", HostPort: 31009}}, Down: "fails its health check"},
	}
}

func taskOptions() Options {
	o := options()
	o.Tasks, o.DCOS, o.DCOSCluster = tasks(), true, "zbase32key"
	o.Frameworks = []Framework{{Name: "marathon", Addresses: addrs("10.80.0.2"), Port: 8080}, {Name: "kafka", Addresses: addrs("10.80.0.31")}}
	return o
}

func TestEveryNameOfTasks(t *testing.T) {
	s := fleet()
	s.Services, s.Records = nil, nil
	s.Node = s.Nodes[0]
	got := dump(t, compile(t, s, taskOptions()))
	const file = "testdata/tasks.txt"
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
		t.Errorf("the names differ from %s; got:\n%s", file, got)
	}
}

// asked gives the answers and the additional records, sorted, without names.
func asked(t *testing.T, p *Proxy, name string, qtype uint16) string {
	t.Helper()
	m := ask(t, p, name, qtype, edns(1232))
	var all []string
	for _, text := range append(texts(m.Answer), texts(m.Extra)...) {
		_, data, _ := strings.Cut(text, " ")
		all = append(all, data)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestTasksAnswerUnderAllTheirNames(t *testing.T) {
	s := fleet()
	s.Node = s.Nodes[0]
	p := proxyOf(t, compile(t, s, taskOptions()))
	const both = "A 10.81.0.1, A 10.81.0.2"
	for name, want := range map[string]string{
		"myapp.sub.outer.marathon.mesos.":                               both,
		"myapp-sub-outer.marathon.weir.internal.":                       both,
		"myapp.sub.outer.weir.internal.":                                both,
		"myapp-sub-outer.marathon.containerip.dcos.thisdcos.directory.": both,
		"myapp-sub-outer.marathon.agentip.dcos.thisdcos.directory.":     "A 10.80.0.11, A 10.80.0.31",
		"myapp-sub-outer.marathon.autoip.dcos.thisdcos.global.":         both, // no port of the node's
		"mapped.marathon.autoip.dcos.thisdcos.directory.":               "A 10.80.0.31",
		"mapped.marathon.containerip.dcos.thisdcos.directory.":          "A 10.81.0.3",
		"myapp.sub.outer.marathon.slave.mesos.":                         "A 10.80.0.11, A 10.80.0.31",
		"myapp.sub.outer.marathon.agent.weir.internal.":                 "A 10.80.0.11, A 10.80.0.31",
		"host.default.weir.internal.":                                   "A 10.80.0.11", // the other one is not healthy
		"host.marathon.mesos.":                                          "A 10.80.0.11",
		"broker-0.kafka.mesos.":                                         "A 10.80.0.31",
		"kafka.mesos.":                                                  "A 10.80.0.31",
		"web.shop.l4lb.thisdcos.directory.":                             "A 198.18.0.10",
		"web.shop.l4lb.thisdcos.global.":                                "A 198.18.0.10",
		"web.shop.dclb.thisdcos.directory.":                             "A 198.18.0.10",
		"web.shop.dclb.thisdcos.global.":                                "A 198.18.0.10",
		"WEB.shop.l4lb.zbase32key.dcos.directory.":                      "A 198.18.0.10",
		"host.marathon.mesos.thisdcos.directory.":                       "A 10.80.0.11",
		"ready.spartan.":                                                "A 127.0.0.1",
		"ns.spartan.":                                                   "A 169.254.53.53",
		"zk-1.zk.":                                                      "A 10.80.0.2",
		"zk-5.zk.":                                                      "A 10.80.0.2",
		"thisnode.thisdcos.directory.":                                  "A 10.80.0.11",
		"leader.dcos.thisdcos.directory.":                               "A 10.80.0.2",
		"master.mesos.":                                                 "A 10.80.0.2",
	} {
		if got := asked(t, p, name, dns.TypeA); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := asked(t, p, "myapp.sub.outer.mesos.", dns.TypeAAAA); got != "AAAA fd01:b::1" {
		t.Errorf("AAAA: got %s", got)
	}
}

func TestTasksHaveServiceRecords(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), taskOptions()))
	for name, want := range map[string][]string{
		"_myapp._tcp.sub.outer.marathon.mesos.":              {"A 10.81.0.1", "A 10.81.0.2", "SRV 0 1 8080"},
		"_http._myapp._tcp.sub.outer.marathon.mesos.":        {"A 10.81.0.1", "A 10.81.0.2", "SRV 0 1 8080"},
		"_dns._myapp-sub-outer._udp.marathon.weir.internal.": {"A 10.81.0.1", "A 10.81.0.2", "SRV 0 1 53"},
		"_http._tcp.myapp.sub.outer.weir.internal.":          {"A 10.81.0.1", "A 10.81.0.2", "SRV 0 1 8080"},
		"_host._tcp.default.mesos.":                          {"A 10.80.0.11", "SRV 0 1 31007"},
		"_mapped._tcp.marathon.slave.mesos.":                 {"A 10.80.0.31", "SRV 0 1 31008 p1.node.mesos."},
		"_mapped._tcp.marathon.mesos.":                       {"A 10.81.0.3", "SRV 0 1 80"},
		"_broker._tcp.kafka.mesos.":                          {"A 10.80.0.31", "SRV 0 1 9092"},
		"_leader._tcp.mesos.":                                {"A 10.80.0.2", "SRV 0 0 8443 leader.mesos."},
		"_framework._tcp.marathon.mesos.":                    {"A 10.80.0.2", "SRV 0 0 8080 marathon.mesos."},
	} {
		got := asked(t, p, name, dns.TypeSRV)
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: got %s, want %s in it", name, got, part)
			}
		}
	}
	reverse, _ := dns.ReverseAddr("10.81.0.2")
	want := distinct("myapp-sub-outer", "outer_sub_myapp.2") + ".marathon.weir.internal."
	if got := asked(t, p, reverse, dns.TypePTR); got != "PTR "+want {
		t.Errorf("PTR: got %s, want %s", got, want)
	}
}

func TestAppsThatWantOneNameAreKeptApart(t *testing.T) {
	task := func(id, address string, path ...string) Task {
		return Task{ID: id, Path: path, Addresses: addrs(address), NodeAddresses: addrs("10.80.0.11"), Node: "a1", Ports: []TaskPort{{Port: 80}}}
	}
	long := strings.Repeat("x", 70)
	o := options()
	o.Tasks = []Task{task("1", "10.81.0.1", "a_b"), task("2", "10.81.0.2", "a-b"), task("3", "10.81.0.3", long+"a"), task("4", "10.81.0.4", long+"b"),
		task("5", "10.81.0.5", "shop", "web"), task("6", "10.81.0.6", "%%%")}
	table := compile(t, fleet(), o)
	p := proxyOf(t, table)
	if got := asked(t, p, "a-b.marathon.mesos.", dns.TypeA); got != "A 10.81.0.2" {
		t.Errorf("the name goes to the app that is called so: got %s", got)
	}
	if got := asked(t, p, distinct("a-b", "\x00a_b")+".marathon.mesos.", dns.TypeA); got != "A 10.81.0.1" {
		t.Errorf("the other has a suffix: got %s", got)
	}
	if got := asked(t, p, long[:63]+".marathon.mesos.", dns.TypeA); got != "A 10.81.0.3" {
		t.Errorf("of two long names, the first: got %s", got)
	}
	if got := asked(t, p, serviceLabel(distinct(long[:63], "\x00"+long+"b"))+"._tcp.marathon.mesos.", dns.TypeSRV); !strings.Contains(got, "A 10.81.0.4") {
		t.Errorf("the other's SRV: got %s", got)
	}
	// A document goes before what follows from an app; the app has other names.
	if got := asked(t, p, "web.shop.mesos.", dns.TypeA); got != "A 10.80.0.11, A 10.80.0.12" {
		t.Errorf("a service's name: got %s", got)
	}
	if got := asked(t, p, "web.shop.marathon.mesos.", dns.TypeA); got != "A 10.81.0.5" {
		t.Errorf("the app's own: got %s", got)
	}
	notices := strings.Join(table.Notices(), "\n")
	for _, want := range []string{"app /a_b: a-b.marathon is app /a-b already", "web.shop.mesos: more than one claims it", "app /%%%: nothing of the name"} {
		if !strings.Contains(notices, want) {
			t.Errorf("notices %s\nlack %q", notices, want)
		}
	}
	next, err := table.Apply(Change{GoneTasks: []string{"2", "6"}, GoneServices: []api.Service{{Name: "web", Namespace: "shop"}}})
	if err != nil {
		t.Fatal(err)
	}
	p.Set(next)
	if got := asked(t, p, "a-b.marathon.mesos.", dns.TypeA); got != "A 10.81.0.1" {
		t.Errorf("once the first has gone: got %s", got)
	}
	if got := asked(t, p, "web.shop.mesos.", dns.TypeA); got != "A 10.81.0.5" {
		t.Errorf("once the service has gone: got %s", got)
	}
}

func TestNamesOfDCOSNeverLeave(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.7"))
	p := proxyOf(t, compile(t, fleet(), taskOptions()), up.at)
	longest := strings.Repeat("a.", 110) + strings.Repeat("b", 10) + ".mesos.thisdcos.global." // too long once renamed
	for name, zone := range map[string]string{
		"nothing.l4lb.thisdcos.directory.": "thisdcos.directory.", "thisdcos.directory.": "thisdcos.directory.", "x.thisdcos.global.": "thisdcos.global.",
		"nothing.dclb.thisdcos.global.": "dclb.thisdcos.global.", "x.zbase32key.dcos.directory.": "zbase32key.dcos.directory.", "x.spartan.": "spartan.",
		longest: "mesos.thisdcos.global.",
	} {
		m := resolve(t, p, name, dns.TypeA)
		if len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Name != zone {
			t.Errorf("%s: got %v, want a denial by %s", name, m, zone)
		}
	}
	if n := up.queries.Load(); n > 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if m := resolve(t, p, "other.dcos.directory.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("another cluster's name: got %v", m)
	}
	if m := ask(t, p, "thisdcos.global.", dns.TypeSOA); len(m.Answer) != 1 || m.Answer[0].Header().Name != "thisdcos.global." {
		t.Errorf("SOA of a zone that is renamed: got %v", m)
	}
	o := options()
	o.DCOS, o.Aliases = true, []string{"directory"}
	if _, err := Compile(fleet(), o); err == nil || !strings.Contains(err.Error(), "in the way of DC/OS") {
		t.Errorf("an alias that holds a zone of DC/OS: got %v", err)
	}
}
