package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

const plain = `name: plain
networks: {private: 10.80.0.0/24, public: 203.0.113.0/24, six: "fd00:80::/64"}
hosts:
- {name: a1, zone: private, networks: {private: 10.80.0.11, six: "fd00:80::11"}, attributes: {rack: r1}}
- {name: a2, zone: private, networks: {private: [10.80.0.12, 10.80.0.13], six: "fd00:80::12"}}
- {name: p1, zone: public, networks: {public: 203.0.113.31, private: 10.80.0.31}}
- {name: client, networks: {public: 203.0.113.9}, gateway: 203.0.113.31}
`

func TestBadLabFilesAreRefusedWithTheirPlace(t *testing.T) {
	const head = "name: x\nnetworks: {n: 10.0.0.0/24}\nhosts:\n"
	for name, test := range map[string]struct{ text, want string }{
		"not YAML":                 {"name: [", "lab.yaml:1:1: is not YAML"},
		"unknown key":              {head + "- {name: a, color: red}\n", "lab.yaml:4:13: hosts[0].color: unknown key"},
		"wrong type":               {"name: x\nnetworks: 7\n", "lab.yaml:2:11: networks: must be a mapping"},
		"no name":                  {"networks: {n: 10.0.0.0/24}\nhosts: [{name: a}]\n", "lab.yaml:1:1: name: is missing"},
		"bad name":                 {"name: X Y\nhosts: [{name: a}]\n", `lab.yaml:1:7: name: "X Y" must be 1 to 40`},
		"name leaves the folder":   {"name: ../x\nhosts: [{name: a}]\n", "lab.yaml:1:7: name:"},
		"no hosts":                 {"name: x\n", "lab.yaml:1:1: hosts: is empty"},
		"bad network":              {"name: x\nnetworks: {n: 10.0.0.0/40}\n", "lab.yaml:2:15: networks.n: "},
		"host bits":                {"name: x\nnetworks: {n: 10.0.0.1/24}\nhosts: [{name: a}]\n", "lab.yaml:2:15: networks.n: 10.0.0.1/24 has host bits set; the network is 10.0.0.0/24"},
		"overlap":                  {"name: x\nnetworks: {m: 10.0.0.0/8, n: 10.0.0.0/24}\nhosts: [{name: a}]\n", "lab.yaml:2:30: networks.n: 10.0.0.0/24 overlaps network m"},
		"long network name":        {"name: x\nnetworks: {a-network-too-long: 10.0.0.0/8}\nhosts: [{name: a}]\n", "must be 1 to 15"},
		"network lo":               {"name: x\nnetworks: {lo: 10.0.0.0/8}\nhosts: [{name: a}]\n", "and not lo"},
		"host twice":               {head + "- {name: a}\n- {name: a}\n", `lab.yaml:5:10: hosts[1].name: host "a" is given twice; first as hosts[0]`},
		"bad host name":            {head + "- {name: a.b}\n", `lab.yaml:4:10: hosts[0].name: "a.b" must be`},
		"unknown network":          {head + "- {name: a, networks: {m: 10.0.0.1}}\n", `lab.yaml:4:27: hosts[0].networks.m: network "m" is not among the lab's networks [n]`},
		"address outside":          {head + "- {name: a, networks: {n: 10.0.1.1}}\n", "lab.yaml:4:27: hosts[0].networks.n[0]: 10.0.1.1 is outside of network n (10.0.0.0/24)"},
		"address is no address":    {head + "- {name: a, networks: {n: ten}}\n", "lab.yaml:4:27: hosts[0].networks.n: "},
		"network's address":        {head + "- {name: a, networks: {n: 10.0.0.0}}\n", "is the address of the network itself"},
		"broadcast address":        {head + "- {name: a, networks: {n: 10.0.0.255}}\n", "is the broadcast address"},
		"address twice":            {head + "- {name: a, networks: {n: 10.0.0.1}}\n- {name: b, networks: {n: [10.0.0.2, 10.0.0.1]}}\n", "lab.yaml:5:38: hosts[1].networks.n[1]: 10.0.0.1 is taken already by hosts[0].networks.n"},
		"unknown daemon":           {head + "- {name: a, run: [httpd], networks: {n: 10.0.0.1}}\n", `lab.yaml:4:19: hosts[0].run[0]: "httpd" is neither agent nor controller`},
		"node without address":     {head + "- {name: a, run: [agent]}\n", "hosts[0].networks: is missing: a node needs an address"},
		"gateway outside":          {head + "- {name: a, networks: {n: 10.0.0.1}, gateway: 10.0.1.1}\n", "lab.yaml:4:47: hosts[0].gateway[0]: 10.0.1.1 is no other host"},
		"gateway is itself":        {head + "- {name: a, networks: {n: 10.0.0.1}, gateway: 10.0.0.1}\n", "is no other host"},
		"two gateways":             {head + "- {name: a, networks: {n: 10.0.0.1}, gateway: [10.0.0.2, 10.0.0.3]}\n", "second gateway"},
		"state is missing":         {head + "- {name: a}\nstate: ./none\n", "lab.yaml:5:8: state: "},
		"all faults and not first": {head + "- {name: A}\n- {name: B}\n", `hosts[1].name: "B"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "lab.yaml")
			if err := os.WriteFile(file, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := ReadFile(file)
			if err == nil {
				t.Fatal("was taken")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), file+":") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestLabFileBecomesHosts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "lab.yaml")
	text := strings.Replace(plain, "name: a1, zone", "name: a1, run: [agent], agent: {dns: {domain: here.internal}}, zone", 1) +
		"agent: {dns: {upstreams: [10.80.0.2], domain: all.internal}, zones: {mode: observe}}\nstate: ./state.d\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec, err := ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := spec.State, filepath.Join(dir, "state.d"); got != want {
		t.Errorf("state: got %s, want %s", got, want)
	}
	a1, p1, client := spec.Hosts[0], spec.Hosts[2], spec.Hosts[3]
	if a1.Role != "agent" || p1.Role != "public" || client.IsNode() {
		t.Errorf("roles: got %q, %q, %q", a1.Role, p1.Role, client.Role)
	}
	if got := p1.Addresses()[0].String(); got != "10.80.0.31" {
		t.Errorf("the first address of p1 is %s, want that on the lab's first network", got)
	}
	wantConfig := `# generated by weir-lab
state: ["/etc/weir/state.d","/etc/weir/nodes.d"]
dns: {"domain":"here.internal","listen":["169.254.53.53"],"upstreams":["10.80.0.2"]}
node: {"attributes":{"rack":"r1"},"name":"a1","role":"agent","zone":"private"}
vip: {"cgroup":"/cg"}
zones: {"mode":"observe"}
`
	if got := agentConfig(a1, "/cg", false); got != wantConfig {
		t.Errorf("agent.yaml: got\n%swant\n%s", got, wantConfig)
	}
	if got, want := resolvConf(a1), "nameserver 169.254.53.53\nsearch here.internal\n"; got != want {
		t.Errorf("resolv.conf: got %q, want %q", got, want)
	}
}

func TestGeneratedNodesAreDocuments(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte(plain), 0o644); err != nil {
		t.Fatal(err)
	}
	spec, err := ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documents, err := document.Parse("nodes.yaml", []byte(nodeDocuments(spec.Hosts)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range documents {
		n := d.Object.(*api.Node)
		got = append(got, fmt.Sprint(n.Name, n.Addresses, n.Role, n.Zone, n.Attributes))
	}
	want := []string{
		"a1[10.80.0.11 fd00:80::11]agentprivatemap[rack:r1]",
		"a2[10.80.0.12 10.80.0.13 fd00:80::12]agentprivatemap[]",
		"p1[10.80.0.31 203.0.113.31]publicpublicmap[]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
