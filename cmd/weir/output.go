package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// formats are the values of --output.
var formats = []string{"table", "json", "yaml"}

func (c *cli) checkOutput(cmd *cobra.Command) error {
	if !slices.Contains(formats, c.output) {
		return usage(cmd, "--output %q is none of %s", c.output, strings.Join(formats, ", "))
	}
	return nil
}

// print writes the value in the wanted format; table writes it for people.
func (c *cli) print(value any, table func(*page)) error {
	var out []byte
	var err error
	switch c.output {
	case "json":
		out, err = asJSON(value)
	case "yaml":
		out, err = asYAML(value)
	default:
		var p page
		table(&p)
		out = p.bytes()
	}
	if err != nil {
		return err
	}
	if _, err := c.stdout.Write(out); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func asJSON(value any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(value)
	return out.Bytes(), err
}

// asYAML goes through JSON, so that keys, their order and the texts of
// addresses and durations are the same in both. JSON is YAML already; what is
// left to do is to write it in blocks.
func asYAML(value any) ([]byte, error) {
	text, err := asJSON(value)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, err
	}
	plain(&node)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// plain takes JSON's braces and quotes away; the encoder puts those back that
// a string needs.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, inner := range n.Content {
		plain(inner)
	}
}

// page is text for people: blocks of aligned columns.
type page struct {
	text  strings.Builder
	block *tabwriter.Writer
}

// row adds a line of the current block.
func (p *page) row(cells ...any) {
	if p.block == nil {
		p.block = tabwriter.NewWriter(&p.text, 0, 0, 2, ' ', 0)
	}
	line := make([]string, len(cells))
	for i, cell := range cells {
		line[i] = oneLine(fmt.Sprint(cell))
	}
	fmt.Fprintln(p.block, strings.Join(line, "\t"))
}

// line ends the block and adds a line of its own; an empty one parts blocks.
func (p *page) line(text string) {
	p.end()
	fmt.Fprintln(&p.text, text)
}

func (p *page) end() {
	if p.block != nil {
		_ = p.block.Flush() // a strings.Builder never fails
		p.block = nil
	}
}

// bytes ends the page. An empty last cell leaves no spaces behind.
func (p *page) bytes() []byte {
	p.end()
	var out bytes.Buffer
	for line := range strings.Lines(p.text.String()) {
		out.WriteString(strings.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// oneLine keeps a text from breaking its row.
func oneLine(text string) string {
	return strings.NewReplacer("\r", "", "\n", "; ", "\t", " ").Replace(strings.TrimSpace(text))
}

// orDash stands for what is empty.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// list joins the texts of values.
func list[T any](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ", ")
}

// plural is a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ago tells how long ago t was, the coarser the longer.
func (c *cli) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	switch d := max(0, c.now().Sub(t)); {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm ago", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours())/24)
	}
}
