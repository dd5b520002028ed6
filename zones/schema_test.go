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

// The schemas of documents for editors are made from the Go types and their
// comments; "go test ./zones -run Schema -update" writes them.

func TestSchemasAreCurrent(t *testing.T) {
	comments, enums := comments(t, "../api")
	for kind, typ := range map[string]reflect.Type{
		"policy": reflect.TypeFor[api.Policy](), "service": reflect.TypeFor[api.Service](), "node": reflect.TypeFor[api.Node](),
		"record": reflect.TypeFor[api.Record](), "network": reflect.TypeFor[api.ContainerNetwork](),
	} {
		checkSchema(t, kind, typ, generator{comments: comments, enums: enums, defs: map[string]any{}})
	}
}

func checkSchema(t *testing.T, kind string, typ reflect.Type, g generator) {
	t.Helper()
	schemaFile := "../docs/schema/" + kind + ".json"
	root := g.structure(typ)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Weir " + kind
	root["properties"].(map[string]any)["kind"] = map[string]any{"const": kind}
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
	comments map[string]string   // by Type and by Type.Field
	enums    map[string][]string // the constants of each type of text
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
	case reflect.TypeFor[api.Duration]():
		return map[string]any{"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$", "examples": []string{"500ms", "10s", "5m"}}
	case reflect.TypeFor[api.VIP]():
		return map[string]any{"type": "string", "examples": []string{"198.18.0.10:80", "web:80", "[fd77::1]:80"}}
	case reflect.TypeFor[netip.AddrPort]():
		return map[string]any{"type": "string", "examples": []string{"10.80.0.11:8080", "[fd00::11]:8080"}}
	case reflect.TypeFor[netip.Addr]():
		return map[string]any{"type": "string", "pattern": "^[0-9a-fA-F:.]+$", "examples": []string{"10.80.0.11", "fd00::11"}}
	}
	if values := g.enums[t.Name()]; t.Kind() == reflect.String && len(values) > 0 {
		return map[string]any{"enum": values}
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
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
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

// comments reads those of the package's types and fields, and the values of its
// constants by their types.
func comments(t *testing.T, folder string) (all map[string]string, enums map[string][]string) {
	t.Helper()
	all, enums = map[string]string{}, map[string][]string{}
	files, _ := filepath.Glob(folder + "/*.go")
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if ok && d.Tok == token.CONST {
				constants(d, enums)
			}
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
	return all, enums
}

// constants notes those that are text.
func constants(d *ast.GenDecl, enums map[string][]string) {
	for _, spec := range d.Specs {
		spec := spec.(*ast.ValueSpec)
		typ, ok := spec.Type.(*ast.Ident)
		if !ok {
			continue
		}
		for _, v := range spec.Values {
			if text, ok := v.(*ast.BasicLit); ok && text.Kind == token.STRING {
				enums[typ.Name] = append(enums[typ.Name], strings.Trim(text.Value, `"`))
			}
		}
	}
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
