package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

// errDiffers is of a diff that found something.
var errDiffers = errors.New("the cluster differs from the documents")

func (c *cli) diffCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what weir apply would change",
		Long: `Show what weir apply would change, line by line. It exits with 0 when nothing
would change, and with 1 when something would.`,
		Example: "  weir diff -f state.d/",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			applied, err := c.apply(cmd, files, true)
			if err != nil {
				return err
			}
			var differing []api.ObjectChange
			for _, change := range applied.Changes {
				if change.Action != api.ObjectUnchanged {
					differing = append(differing, change)
				}
			}
			if len(differing) == 0 {
				return nil
			}
			if err := c.print(differing, func(p *page) { objectDiffPage(p, differing) }); err != nil {
				return err
			}
			return errDiffers
		},
	}
	filesFlag(cmd, &files)
	return cmd
}

func objectDiffPage(p *page, changes []api.ObjectChange) {
	for _, change := range changes {
		p.line(fmt.Sprintf("%s/%s %s", change.Kind, change.Key, change.Action))
		for _, line := range lineDiff(yamlLines(change.Before), yamlLines(change.After)) {
			p.line(line)
		}
	}
}

// yamlLines are an object's, for people.
func yamlLines(raw json.RawMessage) []string {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	text, err := asYAML(raw)
	if err != nil {
		return []string{string(raw)}
	}
	return strings.Split(strings.TrimRight(string(text), "\n"), "\n")
}

// maxDiff bounds what is compared line by line, as lines times lines.
const maxDiff = 4 << 20

// lineDiff marks lines that go with - and those that come with +; what stays is
// shown where it is next to these. Of very long texts the whole is shown.
func lineDiff(before, after []string) []string {
	for len(before) > 0 && len(after) > 0 && before[0] == after[0] && len(before)*len(after) > maxDiff {
		before, after = before[1:], after[1:]
	}
	var marked []string
	if len(before)*len(after) > maxDiff {
		for _, l := range before {
			marked = append(marked, "- "+l)
		}
		for _, l := range after {
			marked = append(marked, "+ "+l)
		}
		return marked
	}
	common := longestCommon(before, after)
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			marked = append(marked, "  "+before[i])
			i, j = i+1, j+1
		case j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1]:
			marked = append(marked, "- "+before[i])
			i++
		default:
			marked = append(marked, "+ "+after[j])
			j++
		}
	}
	return near(marked)
}

// longestCommon is the length of the longest common sequence of what is left
// from each pair of places.
func longestCommon(a, b []string) [][]int32 {
	table := make([][]int32, len(a)+1)
	for i := range table {
		table[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}

// contextLines are shown on either side of a change.
const contextLines = 3

// near leaves out what is far from every change.
func near(marked []string) []string {
	keep := make([]bool, len(marked))
	for i, l := range marked {
		if l[0] == ' ' {
			continue
		}
		for k := max(0, i-contextLines); k <= min(len(marked)-1, i+contextLines); k++ {
			keep[k] = true
		}
	}
	var shown []string
	for i, l := range marked {
		switch {
		case keep[i]:
			shown = append(shown, l)
		case i > 0 && keep[i-1]:
			shown = append(shown, "  …")
		}
	}
	return shown
}
