package zones

import (
	"encoding/json"
	"fmt"
)

// MatrixFormats are those that Draw knows.
var MatrixFormats = []string{"text", "dot", "svg", "html", "json"}

// Draw writes the matrix in a format: text (also when it is empty), dot, svg,
// html or json, and tells its media type.
func (m Matrix) Draw(format string) (text []byte, media string, err error) {
	switch format {
	case "", "text":
		return []byte(m.Text()), "text/plain; charset=utf-8", nil
	case "dot":
		return []byte(m.DOT()), "text/vnd.graphviz; charset=utf-8", nil
	case "svg":
		return []byte(m.SVG()), "image/svg+xml", nil
	case "html":
		return []byte(m.HTML()), "text/html; charset=utf-8", nil
	case "json":
		text, err = json.MarshalIndent(m, "", "  ")
		return append(text, '\n'), "application/json", err
	}
	return nil, "", fmt.Errorf("%q is not one of text, dot, svg, html, json", format)
}
