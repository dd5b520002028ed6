package policyfile

import (
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
)

const text = `kind: policy
zones:
  a: {cidrs: [10.1.0.0/16]}
  b: {cidrs: [10.2.0.0/16]}
rules:
- {name: r, from: [a], to: [b], allow: [tcp/80]}
`

func TestFaultsAndWarningsHaveTheirPlaces(t *testing.T) {
	f, err := Parse("p.yaml", []byte(text+"- {name: s, from: [a], to: [b], allow: [tcp/80]}\ntests:\n- {from: a, to: b, port: tcp/80, expect: deny}\n"))
	if err != nil {
		t.Fatal(err)
	}
	found := f.Check(zones.Bind(f.Policy, zones.State{}, time.Now()))
	if len(found) != 2 || found[0].Line != 9 || found[0].Warning || found[1].Line != 7 || !found[1].Warning || found[1].Field != "rules[1]" {
		t.Errorf("got %+v", found)
	}
	if err := Faults(found); err == nil || !strings.HasPrefix(err.Error(), "p.yaml:9:3: tests[0]: expected deny") {
		t.Errorf("got %v", err)
	}
	if file, line := f.Place("rules[1].to"); file != "p.yaml" || line != 7 {
		t.Errorf("got %s:%d", file, line)
	}
	if len(f.Names(time.Now())) != 0 || f.Policy.Tests == nil {
		t.Error("the names alone have faults, or the tests are gone")
	}
}

func TestAPolicyReadBeforeHasItsPlace(t *testing.T) {
	f, err := Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if file, line := At(f.Policy, f.source).Place("rules[0]"); file != "p.yaml" || line != 6 {
		t.Errorf("got %s:%d", file, line)
	}
	unplaced := At(f.Policy, nil)
	if file, line := unplaced.Place("rules[0]"); file != "" || line != 0 {
		t.Errorf("got %s:%d", file, line)
	}
	if found := unplaced.Check(zones.Bind(f.Policy, zones.State{}, time.Now())); len(found) != 0 {
		t.Errorf("got %+v", found)
	}
}

func TestADocumentIsReplacedAmongOthers(t *testing.T) {
	const three = "# one\na: 1\n---\nb: 2\nc: 3\n--- \nd: 4\n"
	for line, want := range map[int]string{
		1: "x\n---\nb: 2\nc: 3\n--- \nd: 4\n", 2: "x\n---\nb: 2\nc: 3\n--- \nd: 4\n",
		4: "# one\na: 1\n---\nx\n--- \nd: 4\n", 5: "# one\na: 1\n---\nx\n--- \nd: 4\n", 7: "# one\na: 1\n---\nb: 2\nc: 3\n--- \nx\n",
	} {
		if got := string(Replace([]byte(three), line, []byte("x\n\n"))); got != want {
			t.Errorf("line %d: got %q, want %q", line, got, want)
		}
		before, document, after := Cut([]byte(three), line)
		if got := string(before) + string(document) + string(after); got != three {
			t.Errorf("line %d: the parts are %q", line, got)
		}
	}
	if got := string(Replace([]byte("a: 1"), 1, []byte("x"))); got != "x\n" {
		t.Errorf("got %q", got)
	}
}

func TestASummaryIsShort(t *testing.T) {
	bind := func(s string) *zones.View {
		f, err := Parse("p.yaml", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return zones.Bind(f.Policy, zones.State{}, time.Now())
	}
	old := bind(text)
	for now, want := range map[string]string{
		text: "allows the same as before",
		strings.Replace(text, "[tcp/80]", "[tcp/80, tcp/443]", 1): "opens a → b tcp/443",
		strings.Replace(text, "tcp/80", "tcp/22", 1):              "opens a → b tcp/22; closes a → b tcp/80",
	} {
		if got := Summary(Diff(old, bind(now))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Summary(Diff(bind(strings.Replace(text, "tcp/80", "tcp/80, tcp/1, tcp/3, tcp/5, tcp/7", 1)), old)); got != "closes a → b tcp/1 tcp/3 tcp/5 …" {
		t.Errorf("got %q", got)
	}
	if !(api.ZoneDiff{}).Empty() {
		t.Error("nothing is something")
	}
}
