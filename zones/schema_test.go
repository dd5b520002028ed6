package zones

import (
	"bytes"
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

// The schema of policies for editors is made from the Go types and their
// comments; "go test ./zones -run Schema -update" writes it.

const schemaFile = "../docs/schema/policy.json"

func TestSchemaIsCurrent(t *testing.T) {
	g := generator{comments: comments(t, "../api"), defs: map[string]any{}}
	root := g.structure(reflect.TypeFor[api.Policy]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Weir policy"
	root["properties"].(map[string]any)["kind"] = map[string]any{"const": "policy"}
	root["required"] = append([]string{"kind"}, root["required"].([]string)...)
	root["$defs"] = g.defs
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is not what the types say; run: go test ./zones -run Schema -update", schemaFile)
	}
}

type generator struct {
	comments map[string]string // by Type and by Type.Field
	defs     map[string]any
}

// of is the schema of a type.
func (g generator) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[api.PortRange]():
		return map[string]any{"type": "string", "pattern": portPattern, "examples": []string{"tcp/80", "tcp/8000-8100", "udp/53", "icmp", "any"}}
	case reflect.TypeFor[api.Traffic]():
		return map[string]any{"type": "string", "pattern": portPattern + "|" + servicePattern, "examples": []string{"tcp/80", "udp/53", "any", "web.shop"}}
	case reflect.TypeFor[api.Network](), reflect.TypeFor[netip.Prefix]():
		return map[string]any{"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "examples": []string{"203.0.113.0/24", "2001:db8::/32"}}
	case reflect.TypeFor[api.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[api.Verdict]():
		return map[string]any{"enum": []string{string(api.Allow), string(api.Deny)}}
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		panic("the schema does not know " + t.String())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Struct:
		if _, made := g.defs[t.Name()]; !made {
			g.defs[t.Name()] = nil
			g.defs[t.Name()] = g.structure(t)
		}
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	case reflect.Slice:
		item := g.of(t.Elem())
		list := map[string]any{"type": "array", "items": item}
		if _, isStruct := item["$ref"]; isStruct {
			return list
		}
		return map[string]any{"anyOf": []any{list, item}} // one value stands for a list of one
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Uint32:
		return map[string]any{"type": "integer", "minimum": 0}
	}
	panic("the schema does not know " + t.String())
}

const (
	portPattern    = "^(any|icmp|(tcp|udp)(/[0-9]{1,5}(-[0-9]{1,5})?)?)$"
	servicePattern = `^[a-z0-9-]+(\.[a-z0-9-]+)+$`
)

func (g generator) structure(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || !f.IsExported() {
			continue
		}
		s := g.of(f.Type)
		owner := t
		for _, i := range f.Index[:len(f.Index)-1] {
			owner = owner.Field(i).Type
		}
		if text := g.comments[owner.Name()+"."+f.Name]; text != "" {
			s["description"] = text
		}
		properties[name] = s
		if options == "" {
			required = append(required, name)
		}
	}
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
	if text := g.comments[t.Name()]; text != "" {
		s["description"] = text
	}
	return s
}

// comments reads those of the package's types and fields.
func comments(t *testing.T, folder string) map[string]string {
	t.Helper()
	all := map[string]string{}
	files, _ := filepath.Glob(folder + "/*.go")
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				return true
			}
			for _, spec := range d.Specs {
				spec := spec.(*ast.TypeSpec)
				all[spec.Name.Name] = oneLine(d.Doc)
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range s.Fields.List {
					for _, name := range f.Names {
						all[spec.Name.Name+"."+name.Name] = oneLine(f.Doc) + oneLine(f.Comment)
					}
				}
			}
			return false
		})
	}
	return all
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
