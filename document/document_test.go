package document

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

const design = `kind: service
name: web                      # in a namespace: web.shop
namespace: shop
vips: ["198.18.0.10:80", "web:80"]
protocol: tcp
balance: maglev
affinity: 10m
backends:
- {address: "10.80.0.11:8080", weight: 1, node: a1}
health: {http: {path: /healthz}, interval: 2s, timeout: 1s, failures: 3}
---
kind: policy
zones:
  admin:   {nodes: {role: controller}}
  private: {nodes: {role: agent}}
  public:  {nodes: {role: public}}
  office:  {cidrs: [203.0.113.0/29]}
rules:
- {name: ops,   from: [office],         to: [admin],   allow: [tcp/22, tcp/443]}
- {name: edge,  from: [any],            to: [public],  allow: [tcp/80, tcp/443]}
- {name: inner, from: [admin, public, private], to: [private], allow: [any]}
tests:
- {from: 203.0.113.3, to: admin,   port: tcp/22, expect: allow}
- {from: 203.0.113.9, to: private, port: tcp/22, expect: deny}
---
{"kind": "record", "name": "db", "type": "a", "data": "10.80.0.9", "ttl": 30}
---
kind: node
name: a1
addresses: [10.80.0.11]
`

func TestTheDesignsDocumentsAreRead(t *testing.T) {
	documents, err := Parse("state.yaml", []byte(design))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range documents {
		kinds = append(kinds, d.Object.Kind()+" "+d.Object.Key())
	}
	if got, want := strings.Join(kinds, ", "), "service web.shop, policy policy, record db/A, node a1"; got != want {
		t.Errorf("documents: got %s, want %s", got, want)
	}
	if got := documents[1].Line; got != 12 {
		t.Errorf("the policy starts on line %d, want 12", got)
	}
	// What was read survives JSON, in which snapshots are kept and sent.
	data, err := json.Marshal(documents[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	var s api.Service
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(&s); string(again) != string(data) {
		t.Errorf("got %s, want %s", again, data)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestMalformedDocumentsAreRefusedWithTheirPlace reads testdata/refused: the
// exact error of each file stands in its neighbour, NAME.want.
func TestMalformedDocumentsAreRefusedWithTheirPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/refused/*[ln]")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("f", data)
			if err == nil {
				t.Fatal("was taken")
			}
			got, golden := err.Error()+"\n", file+".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, _ := os.ReadFile(golden); got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestLeavesAreSetFromText(t *testing.T) {
	type options struct {
		Node struct {
			Name       string            `json:"name"`
			Attributes map[string]string `json:"attributes"`
		} `json:"node"`
		VIPs []api.VIP    `json:"vips"`
		Wait api.Duration `json:"wait"`
	}
	var o options
	values := map[string]string{"node.name": "a1", "node.attributes": "rack=r1", "vips": "web:80,198.18.0.1:53", "wait": "2s"}
	for _, leaf := range Leaves(&o) {
		path := strings.Join(leaf.Path, ".")
		if err := leaf.Set(values[path]); err != nil {
			t.Errorf("set %s: %v", path, err)
		}
		if got := leaf.String(); got != values[path] {
			t.Errorf("%s: got %q, want %q", path, got, values[path])
		}
	}
	if o.Node.Attributes["rack"] != "r1" || len(o.VIPs) != 2 || o.VIPs[1].Addr.String() != "198.18.0.1" {
		t.Errorf("got %+v", o)
	}
	if err := Leaves(&o)[3].Set("soon"); err == nil {
		t.Error("a bad duration was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(design))
	f.Add([]byte("kind: service\nname: &a x\nvips: *a\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		documents, err := Parse("f", data)
		if err == nil {
			for _, d := range documents {
				if err := d.Object.Validate(); err != nil {
					t.Errorf("an invalid document was taken: %v", err)
				}
			}
			return
		}
		for _, e := range Errors(err) {
			if e.File == "" || e.Line == 0 {
				t.Errorf("no place in %q", e)
			}
		}
	})
}
