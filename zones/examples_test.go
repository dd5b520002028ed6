package zones

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// load reads documents as the agent does.
func load(t testing.TB, files ...string) (*api.Policy, State) {
	t.Helper()
	var p *api.Policy
	var s State
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join("../examples/zones", file))
		if err != nil {
			t.Fatal(err)
		}
		documents, err := document.Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range documents {
			switch o := d.Object.(type) {
			case *api.Policy:
				p = o
			case *api.Node:
				s.Nodes = append(s.Nodes, *o)
			case *api.Service:
				s.Services = append(s.Services, *o)
			}
		}
	}
	slices.SortFunc(s.Nodes, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Services, func(a, b api.Service) int { return strings.Compare(a.Key(), b.Key()) })
	return p, s
}

func TestExamplesHold(t *testing.T) {
	for policy, fleet := range map[string]string{"three-zones.yaml": "fleet.yaml", "apps.yaml": "apps-fleet.yaml"} {
		p, s := load(t, policy, fleet)
		v := Bind(p, s, someTime.Add(-time.Hour))
		if err := v.Check(); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
		for _, f := range v.Lint() {
			t.Errorf("%s: %v", policy, f)
		}
		for _, cut := range v.Cuts(ControllerFlows(s.Nodes, 8443, 0)) {
			t.Errorf("%s cuts %s", policy, cut.Why)
		}
		for _, self := range s.Nodes {
			c := newChance(1)
			compareAll(t, c, 1, p, s, self, compile(t, p, s, self), map[Hook]int{})
		}
	}
}

func TestThreeZonesAreTheDocumentedMatrix(t *testing.T) {
	p, s := load(t, "three-zones.yaml", "fleet.yaml")
	got := Bind(p, s, someTime).Matrix()
	golden(t, "three-zones.txt", got.Text())
	golden(t, "three-zones.dot", got.DOT())
	golden(t, "three-zones.svg", got.SVG())
	golden(t, "three-zones.html", got.HTML())
}

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
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
		t.Errorf("it differs from %s:\n%s", file, got)
	}
}

func TestCompiledExamples(t *testing.T) {
	p, s := load(t, "three-zones.yaml", "fleet.yaml")
	for _, self := range s.Nodes {
		if self.Name == "a2" || self.Name == "c2" {
			continue
		}
		golden(t, self.Name+".txt", list(compile(t, p, s, self)))
	}
}
