package zones

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// Every policy in the page is taken as it stands, and means the same to the
// compiler and to Decide.
func TestThePagesPoliciesHold(t *testing.T) {
	page, err := os.ReadFile("../docs/zones.md")
	if err != nil {
		t.Fatal(err)
	}
	_, s := load(t, "fleet.yaml")
	found := 0
	for _, block := range regexp.MustCompile(`(?m)(?:^(?:    .*)?\n)+`).FindAllString(string(page), -1) {
		text := regexp.MustCompile(`(?m)^    `).ReplaceAllString(strings.Trim(block, "\n"), "")
		if !strings.HasPrefix(text, "kind:") {
			continue
		}
		found++
		documents, err := document.Parse("zones.md", []byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		p := documents[0].Object.(*api.Policy)
		if err := documents[0].Locate(Bind(p, s, someTime).Check()); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		for _, self := range s.Nodes {
			compareAll(t, newChance(2), 2, p, s, self, compile(t, p, s, self), map[Hook]int{})
		}
	}
	if found < 6 {
		t.Errorf("found %d policies, want 6 or more", found)
	}
}
