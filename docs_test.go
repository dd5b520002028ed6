package weir

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/document"
)

// pages are what people read.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, _ := filepath.Glob("docs/*.md")
	all := map[string]string{}
	for _, file := range append(files, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[file] = string(data)
	}
	return all
}

// block is an indented example: it ends where the text goes on.
var block = regexp.MustCompile(`(?m)(?:^(?:    .*)?\n)+`)

func TestTheDocumentsInThePagesAreTakenAsTheyStand(t *testing.T) {
	found := 0
	for file, text := range pages(t) {
		for _, example := range block.FindAllString(text, -1) {
			example = regexp.MustCompile(`(?m)^    `).ReplaceAllString(strings.Trim(example, "\n"), "")
			switch {
			case strings.HasPrefix(example, "kind:"):
				found++
				if _, err := document.Parse(file, []byte(example)); err != nil {
					t.Errorf("%v\nin\n%s", err, example)
				}
			case strings.HasPrefix(example, "node:"):
				found++
				config := agent.DefaultConfig()
				if _, err := document.Decode(file, []byte(example), &config); err != nil {
					t.Errorf("%v\nin\n%s", err, example)
				} else if err := config.Validate(); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
	if found < 6 {
		t.Errorf("only %d examples were found", found)
	}
}

func TestLinksLeadToFiles(t *testing.T) {
	for file, text := range pages(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func TestTheReadmesTargetsExist(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range pages(t) {
		for _, m := range regexp.MustCompile("(?:`|    )make ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which is not there", file, m[1])
			}
		}
	}
}
