package zones

import (
	"fmt"
	"html"
	"strings"
	"text/tabwriter"

	"github.com/weirproject/weir/api"
)

// The renderers of a Matrix are pure: the same matrix gives the same text.

func portsText(all []api.PortRange, most int) string {
	var parts []string
	for i, p := range all {
		if i == most && len(all) > most+1 {
			parts = append(parts, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		parts = append(parts, p.String())
	}
	return strings.Join(parts, " ")
}

// String is what a cell says: ports, those in brackets for some addresses only,
// "-" for nothing, and "" where there is nobody.
func (c Cell) String() string {
	switch open, partly := portsText(c.Open, 4), portsText(c.Partly, 4); {
	case c.Empty:
		return ""
	case open == "" && partly == "":
		return "-"
	case partly == "":
		return open
	case open == "":
		return "(" + partly + ")"
	default:
		return open + " (" + partly + ")"
	}
}

// Text draws the matrix as a table: a row is a source, a column a destination.
func (m Matrix) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "FROM \\ TO\t%s\n", strings.Join(m.Zones, "\t"))
	for i, zone := range m.Zones {
		fmt.Fprint(w, zone)
		for _, cell := range m.Cells[i] {
			fmt.Fprintf(w, "\t%s", cell)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // a strings.Builder takes everything
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// edges calls do for everything that is open between two zones.
func (m Matrix) edges(do func(i, j int, c Cell)) {
	for i, row := range m.Cells {
		for j, c := range row {
			if len(c.Open)+len(c.Partly) > 0 {
				do(i, j, c)
			}
		}
	}
}

// DOT draws the matrix as a graph for Graphviz; a dashed arrow is open for some
// addresses only.
func (m Matrix) DOT() string {
	var b strings.Builder
	b.WriteString("digraph zones {\n  rankdir=LR;\n  node [shape=box];\n")
	for _, z := range m.Zones {
		fmt.Fprintf(&b, "  %q;\n", z)
	}
	m.edges(func(i, j int, c Cell) {
		style := "solid"
		if len(c.Open) == 0 {
			style = "dashed"
		}
		fmt.Fprintf(&b, "  %q -> %q [label=%q, style=%s];\n", m.Zones[i], m.Zones[j], c.String(), style)
	})
	b.WriteString("}\n")
	return b.String()
}

// The measures of the SVG, in pixels.
const (
	cellWidth  = 168
	cellHeight = 36
)

// colour of a cell: how much is open.
func (c Cell) colour() string {
	switch {
	case c.Empty:
		return "#f4f4f5"
	case len(c.Open)+len(c.Partly) == 0:
		return "#ffffff"
	case len(c.Open) == 1 && c.Open[0].Protocol == "any":
		return "#fecaca"
	case len(c.Open) == 0:
		return "#fef9c3"
	default:
		return "#bbf7d0"
	}
}

// title is what a cell says in full.
func (m Matrix) title(i, j int) string {
	c := m.Cells[i][j]
	text := m.Zones[i] + " → " + m.Zones[j] + ": "
	switch {
	case c.Empty:
		return text + "nobody"
	case len(c.Open)+len(c.Partly) == 0:
		return text + "closed"
	}
	if len(c.Open) > 0 {
		text += portsText(c.Open, len(c.Open))
	}
	if len(c.Partly) > 0 {
		text += " for some addresses: " + portsText(c.Partly, len(c.Partly))
	}
	if len(c.Rules) > 0 {
		text += " by " + strings.Join(c.Rules, ", ")
	}
	return text
}

// SVG draws the matrix as a picture without scripts; the rules of a cell show
// when the pointer is on it.
func (m Matrix) SVG() string {
	var b strings.Builder
	n := len(m.Zones) + 1
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", n*cellWidth, n*cellHeight)
	cell := func(row, column int, colour, text, title string) {
		x, y := column*cellWidth, row*cellHeight
		fmt.Fprintf(&b, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" fill="%s" stroke="#a1a1aa"/><text x="%d" y="%d">%s</text></g>`+"\n",
			html.EscapeString(title), x, y, cellWidth, cellHeight, colour, x+6, y+22, html.EscapeString(fitted(text)))
	}
	cell(0, 0, "#e4e4e7", "from \\ to", "a row is a source, a column a destination")
	for i, z := range m.Zones {
		cell(0, i+1, "#e4e4e7", z, "to "+z)
		cell(i+1, 0, "#e4e4e7", z, "from "+z)
	}
	for i := range m.Zones {
		for j, c := range m.Cells[i] {
			cell(i+1, j+1, c.colour(), c.String(), m.title(i, j))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// fitted cuts a text that is too long for a cell.
func fitted(text string) string {
	if r := []rune(text); len(r) > 24 {
		return string(r[:23]) + "…"
	}
	return text
}

// HTML is a page with the matrix as a table, without scripts.
func (m Matrix) HTML() string {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Security zones</title>\n<style>\n" +
		"body { font-family: sans-serif; margin: 2em }\ntable { border-collapse: collapse }\nth, td { border: 1px solid #a1a1aa; padding: .4em .8em; text-align: left; vertical-align: top }\n" +
		"th { background: #e4e4e7 }\nsmall { color: #52525b }\n</style></head>\n<body>\n<h1>Security zones</h1>\n<p>A row is a source, a column a destination. Ports in brackets are open for some addresses only.</p>\n<table>\n<tr><th>from \\ to</th>")
	for _, z := range m.Zones {
		fmt.Fprintf(&b, "<th>%s</th>", html.EscapeString(z))
	}
	b.WriteString("</tr>\n")
	for i, z := range m.Zones {
		fmt.Fprintf(&b, "<tr><th>%s</th>", html.EscapeString(z))
		for j, c := range m.Cells[i] {
			fmt.Fprintf(&b, `<td style="background: %s" title="%s">%s`, c.colour(), html.EscapeString(m.title(i, j)), html.EscapeString(c.String()))
			if len(c.Rules) > 0 {
				fmt.Fprintf(&b, "<br><small>%s</small>", html.EscapeString(ruleNames(c.Rules)))
			}
			b.WriteString("</td>")
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table>\n</body>\n</html>\n")
	return b.String()
}

// ruleNames names the first of many rules.
func ruleNames(rules []string) string {
	if len(rules) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(rules[:3], ", "), len(rules)-3)
	}
	return strings.Join(rules, ", ")
}
