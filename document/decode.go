package document

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Go value from a YAML tree and collects every fault.
type decoder struct {
	source *Source
	ignore string // a key of the root that is not a field
	faults []error
}

func (d *decoder) err() error { return errors.Join(d.faults...) }

func (d *decoder) fault(n *yaml.Node, field, format string, args ...any) {
	d.faults = append(d.faults, d.source.at(n, field, fmt.Sprintf(format, args...)))
}

func (d *decoder) decode(n *yaml.Node, field string, v any) {
	d.value(n, field, reflect.ValueOf(v).Elem())
}

// value decodes n into v. The order matters: a type that reads itself from
// text does so before its kind is looked at.
func (d *decoder) value(n *yaml.Node, field string, v reflect.Value) {
	d.source.fields[field] = position{n.Line, n.Column}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.fault(n, field, "YAML anchors and aliases are not supported; write the value out")
		return
	}
	if v.Kind() == reflect.Pointer {
		if n.Tag == "!!null" {
			d.fault(n, field, "is empty: leave the key out, or give it a value")
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, field, u)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, field, v)
	case reflect.Map:
		d.mapping(n, field, v)
	case reflect.Slice:
		d.slice(n, field, v)
	case reflect.Interface:
		v.Set(reflect.ValueOf(d.plain(n, field)))
	default:
		d.scalar(n, field, v)
	}
}

// plain is a value whose type somebody else knows: map[string]any, []any, or the
// text of a single value.
func (d *decoder) plain(n *yaml.Node, field string) any {
	switch n.Kind {
	case yaml.MappingNode:
		all := map[string]any{}
		d.eachKey(n, field, func(key string, _, value *yaml.Node) { all[key] = d.plain(value, join(field, key)) })
		return all
	case yaml.SequenceNode:
		all := []any{}
		for i, item := range n.Content {
			all = append(all, d.plain(item, fmt.Sprintf("%s[%d]", field, i)))
		}
		return all
	default:
		return n.Value
	}
}

func (d *decoder) text(n *yaml.Node, field string, u encoding.TextUnmarshaler) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.fault(n, field, "must be one value, not %s", describe(n))
		return
	}
	if err := u.UnmarshalText([]byte(n.Value)); err != nil {
		d.fault(n, field, "%s", strings.TrimPrefix(err.Error(), "netip."))
	}
}

func (d *decoder) structure(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		if n.Tag == "!!null" { // "tcp:" with nothing below it means all defaults
			return
		}
		d.fault(n, field, "must be a mapping of keys, not %s", describe(n))
		return
	}
	fields := fieldsOf(v.Type())
	d.eachKey(n, field, func(key string, keyNode, value *yaml.Node) {
		if field == "" && key == d.ignore && key != "" {
			return
		}
		index, known := fields[key]
		if !known {
			d.fault(keyNode, join(field, key), "unknown key; keys here are %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			return
		}
		d.value(value, join(field, key), v.FieldByIndex(index))
	})
}

func (d *decoder) mapping(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, field, "must be a mapping of keys, not %s", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.eachKey(n, field, func(key string, _, value *yaml.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(value, join(field, key), element)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), element)
	})
}

// eachKey calls do for every key of a mapping and refuses keys given twice.
func (d *decoder) eachKey(n *yaml.Node, field string, do func(key string, keyNode, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		keyNode, value := n.Content[i], n.Content[i+1]
		key := keyNode.Value
		if keyNode.Kind != yaml.ScalarNode {
			d.fault(keyNode, field, "a key must be a plain word")
			continue
		}
		if line, twice := seen[key]; twice {
			d.fault(keyNode, join(field, key), "is given twice; first on line %d", line)
			continue
		}
		seen[key] = keyNode.Line
		do(key, keyNode, value)
	}
}

// slice decodes a list. One plain value stands for a list of one.
func (d *decoder) slice(n *yaml.Node, field string, v reflect.Value) {
	if n.Tag == "!!null" {
		d.fault(n, field, "is empty: leave the key out, or give it a value")
		return
	}
	if n.Kind == yaml.ScalarNode {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(n, field, element)
		v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, 1), element))
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fault(n, field, "must be a list, not %s", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.value(item, fmt.Sprintf("%s[%d]", field, i), v.Index(i))
	}
}

func (d *decoder) scalar(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, field, "must be one value, not %s", describe(n))
		return
	}
	if v.Kind() == reflect.String && n.Tag == "!!null" {
		d.fault(n, field, "is empty: leave the key out, or give it a value")
		return
	}
	if err := setScalar(v, n.Value); err != nil {
		d.fault(n, field, "%v", err)
	}
}

func setScalar(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(i)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number from 0 to %d", text, uint64(1)<<v.Type().Bits()-1)
		}
		v.SetUint(u)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("a %s cannot be written here", v.Type())
	}
	return nil
}

// fieldsOf maps json keys to field indexes, embedded structs included.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "" && name != "-" {
			fields[name] = f.Index
		}
	}
	return fields
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "empty"
	default:
		return strconv.Quote(n.Value)
	}
}
