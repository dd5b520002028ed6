// Package manpage makes the manual's pages of a command. Tests use it, so that
// no command carries what makes them.
package manpage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Check makes a page for each command of the tree, in a section of the manual,
// and fails where one would say too little. It leaves the pages in the folder
// that the environment names in WEIR_MAN, as the packages do; their date is
// SOURCE_DATE_EPOCH.
func Check(t *testing.T, root *cobra.Command, section string) {
	t.Helper()
	dir := os.Getenv("WEIR_MAN")
	if dir == "" {
		dir = t.TempDir()
	}
	dir = filepath.Join(dir, "man"+section)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: section, Source: "Weir", Manual: "Weir's manual"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		t.Fatal(err)
	}
	each(root, func(cmd *cobra.Command) {
		page := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+"."+section)
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
			return
		}
		for _, part := range []string{".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s has no %s", filepath.Base(page), part)
			}
		}
	})
}

// each visits the commands that people see.
func each(cmd *cobra.Command, visit func(*cobra.Command)) {
	if cmd.HasParent() && (!cmd.IsAvailableCommand() || cmd.IsAdditionalHelpTopicCommand()) {
		return
	}
	visit(cmd)
	for _, below := range cmd.Commands() {
		each(below, visit)
	}
}
