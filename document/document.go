// Package document reads the files that people write: YAML or JSON, strictly.
// An unknown key, a wrong type or a bad value is refused with file, line,
// column and field. It knows the typed documents of package api, and decodes
// any other struct (an agent's own file, a lab file) by the same rules.
//
// It never writes a file and never guesses: a file is taken whole or not.
package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weirproject/weir/api"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 << 20

// Error is a fault in a file and where it stands.
type Error struct {
	File   string
	Line   int    // 1 for the first; 0 when it belongs to no line
	Column int    // 1 for the first
	Field  string // path below the document; empty when it belongs to none
	Reason string
}

func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Reason
}

// Errors lists the file errors inside err, in order; an error that carries no
// position comes back as one without.
func Errors(err error) []*Error {
	switch e := err.(type) {
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, inner := range e.Unwrap() {
			all = append(all, Errors(inner)...)
		}
		return all
	}
	var e *Error
	if errors.As(err, &e) {
		return []*Error{e}
	}
	return []*Error{{Reason: err.Error()}}
}

// Document is one typed document and where it came from.
type Document struct {
	Object api.Object
	*Source
}

// kinds makes an empty object of each kind.
func newObject(kind string) api.Object {
	switch kind {
	case "service":
		return &api.Service{}
	case "record":
		return &api.Record{}
	case "policy":
		return &api.Policy{}
	case "node":
		return &api.Node{}
	case "network":
		return &api.ContainerNetwork{}
	}
	return nil
}

// kindNames are the kinds that newObject knows, for messages.
const kindNames = "service, record, policy, node, network"

// Parse reads the typed documents of a file, separated by "---" lines, and
// validates each. All faults of the file come back joined; the documents are
// then incomplete and must not be used.
func Parse(file string, data []byte) ([]Document, error) {
	roots, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	var documents []Document
	var faults []error
	for _, root := range roots {
		d, err := parseDocument(file, root)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		documents = append(documents, d)
	}
	return documents, errors.Join(faults...)
}

func parseDocument(file string, root *yaml.Node) (Document, error) {
	source := newSource(file, root)
	kind, node := mappingValue(root, "kind")
	if node == nil {
		return Document{}, source.Errorf("kind", "is missing: one of %s", kindNames)
	}
	object := newObject(kind)
	if object == nil {
		return Document{}, source.at(node, "kind", fmt.Sprintf("%q is not one of %s", kind, kindNames))
	}
	d := decoder{source: source, ignore: "kind"}
	d.decode(root, "", object)
	if err := d.err(); err != nil {
		return Document{}, err
	}
	return Document{Object: object, Source: source}, source.Locate(object.Validate())
}

// Decode reads one YAML or JSON document into v, a pointer to a struct with
// json tags. An empty file leaves v as it is. The Source locates its fields
// for later checks.
func Decode(file string, data []byte, v any) (*Source, error) {
	roots, err := parseYAML(file, data)
	if err != nil {
		return nil, err
	}
	if len(roots) > 1 {
		return nil, &Error{File: file, Line: roots[1].Line, Column: 1, Reason: "holds a second document; one is expected"}
	}
	if len(roots) == 0 {
		return newSource(file, nil), nil
	}
	d := decoder{source: newSource(file, roots[0])}
	d.decode(roots[0], "", v)
	return d.source, d.err()
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// parseYAML returns the root node of each document that is not empty.
func parseYAML(file string, data []byte) ([]*yaml.Node, error) {
	if len(data) > MaxSize {
		return nil, &Error{File: file, Reason: fmt.Sprintf("is larger than %d MiB", MaxSize>>20)}
	}
	var roots []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			m := yamlLine.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
			line, _ := strconv.Atoi(m[1])
			return nil, &Error{File: file, Line: max(line, 1), Column: 1, Reason: "is not YAML: " + m[2]}
		}
		if len(n.Content) == 1 && n.Content[0].Tag != "!!null" {
			roots = append(roots, n.Content[0])
		}
	}
}

func mappingValue(n *yaml.Node, key string) (string, *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return "", nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1].Value, n.Content[i+1]
		}
	}
	return "", nil
}
