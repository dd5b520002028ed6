package zones

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// FuzzPolicy takes any text as a file of documents: it is refused with a place,
// or means something that the compiler and the evaluator agree on.
func FuzzPolicy(f *testing.F) {
	files, _ := filepath.Glob("../examples/zones/*.yaml")
	refused, _ := filepath.Glob("testdata/refused/*.yaml")
	for _, file := range append(files, refused...) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	_, fleet := load(f, "fleet.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		documents, err := document.Parse("f", []byte(text))
		for _, e := range document.Errors(err) {
			if e.File != "f" || e.Line < 1 || e.Reason == "" {
				t.Fatalf("no place or reason: %+v", e)
			}
		}
		if err != nil {
			return
		}
		for _, d := range documents {
			p, ok := d.Object.(*api.Policy)
			if !ok || len(p.Rules) > 50 || len(p.Zones) > 20 {
				continue
			}
			v := Bind(p, fleet, someTime)
			_ = v.Check()
			v.Lint()
			v.Matrix().Text()
			if change := Diff(v, v); !change.Empty() {
				t.Fatalf("it differs from itself: %s", change)
			}
			for _, self := range fleet.Nodes[:1] {
				compareAll(t, newChance(1), 1, p, fleet, self, compile(t, p, fleet, self), map[Hook]int{})
			}
		}
	})
}

func TestMalformedPoliciesAreRefusedWithTheirPlace(t *testing.T) {
	files, _ := filepath.Glob("testdata/refused/*.yaml")
	if len(files) < 10 {
		t.Fatalf("only %d files", len(files))
	}
	var got string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents, err := document.Parse(filepath.Base(file), data)
		if err == nil { // what only the state tells
			_, s := load(t, "fleet.yaml")
			err = documents[0].Locate(Bind(documents[0].Object.(*api.Policy), s, someTime).Check())
		}
		if err == nil {
			t.Errorf("%s is taken", file)
		}
		for _, e := range document.Errors(err) {
			got += e.Error() + "\n"
			if e.Line == 0 {
				t.Errorf("%v has no line", e)
			}
		}
	}
	golden(t, "refused.txt", got)
}
