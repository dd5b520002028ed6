package server

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

var update = flag.Bool("update", false, "write docs/openapi.json anew")

const openAPIFile = "../../docs/openapi.json"

// TestTheOpenAPIDocumentIsThatOfTheRoutes makes the document of the table of
// routes and the types.
func TestTheOpenAPIDocumentIsThatOfTheRoutes(t *testing.T) {
	got, err := json.MarshalIndent(openAPI(Routes()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(openAPIFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(openAPIFile)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is not that of the routes (%v): run go test ./controller/server -update", err)
	}
}

type dict = map[string]any

var parameter = regexp.MustCompile(`\{([a-z]+)(\.\.\.)?\}`)

func openAPI(routes []Route) dict {
	schemas, paths := dict{}, dict{}
	for _, r := range routes {
		path := parameter.ReplaceAllString(r.Path, "{$1}")
		if paths[path] == nil {
			paths[path] = dict{}
		}
		paths[path].(dict)[strings.ToLower(r.Method)] = operation(r, schemas)
	}
	for _, k := range []api.Object{api.Service{}, api.Record{}, api.Policy{}, api.Node{}, api.ContainerNetwork{}} {
		schemaOf(reflect.TypeOf(k), schemas)
	}
	return dict{
		"openapi": "3.1.0",
		"info":    dict{"title": "Weir controllers", "version": "v1"},
		"paths":   paths,
		"components": dict{
			"schemas": schemas,
			"securitySchemes": dict{
				"bearer": dict{"type": "http", "scheme": "bearer"}, "certificate": dict{"type": "mutualTLS"},
			},
		},
		"security": []any{dict{"bearer": []any{}}, dict{"certificate": []any{}}},
	}
}

func operation(r Route, schemas dict) dict {
	var parameters []any
	for _, m := range parameter.FindAllStringSubmatch(r.Path, -1) {
		parameters = append(parameters, dict{"name": m[1], "in": "path", "required": true, "schema": dict{"type": "string"}})
	}
	for _, q := range r.Query {
		parameters = append(parameters, dict{"name": q, "in": "query", "schema": dict{"type": "string"}})
	}
	media := "application/json"
	if r.Stream {
		media = "application/x-ndjson"
	}
	good := dict{"description": "done"}
	if r.Answer != nil {
		good["content"] = dict{media: dict{"schema": schemaOf(reflect.TypeOf(r.Answer), schemas)}}
	}
	problem := dict{client.ProblemType: dict{"schema": schemaOf(reflect.TypeFor[client.Problem](), schemas)}}
	o := dict{
		"summary":   r.Summary,
		"responses": dict{"2XX": good, "default": dict{"description": "a problem", "content": problem}},
	}
	if parameters != nil {
		o["parameters"] = parameters
	}
	if r.Body != nil {
		schema := schemaOf(reflect.TypeOf(r.Body), schemas)
		if strings.Contains(r.Path, "{kind}") {
			schema = dict{"description": "an object of the kind", "type": "object"}
		}
		o["requestBody"] = dict{"required": true, "content": dict{media: dict{"schema": schema}}}
	}
	return o
}

var text = reflect.TypeFor[encoding.TextMarshaler]()

// schemaOf is a type's JSON schema; structs become components.
func schemaOf(t reflect.Type, schemas dict) dict {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return dict{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return dict{}
	case t.Implements(text) || reflect.PointerTo(t).Implements(text):
		return dict{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case reflect.Bool:
		return dict{"type": "boolean"}
	case reflect.String:
		return dict{"type": "string"}
	case reflect.Float64:
		return dict{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return dict{"type": "string", "contentEncoding": "base64"}
		}
		return dict{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case reflect.Map:
		return dict{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case reflect.Struct:
		return structSchema(t, schemas)
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return dict{"type": "integer"}
	}
	panic(fmt.Sprintf("a route has a value of type %s", t))
}

func structSchema(t reflect.Type, schemas dict) dict {
	name := t.Name()
	reference := dict{"$ref": "#/components/schemas/" + name}
	if schemas[name] != nil {
		return reference
	}
	properties := dict{}
	schemas[name] = dict{"type": "object", "properties": properties}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if key == "-" || !f.IsExported() {
			continue
		}
		if key == "" {
			key = f.Name
		}
		properties[key] = schemaOf(f.Type, schemas)
	}
	return reference
}
