package document

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// Leaf is one value inside a struct of options, for flags and environment
// variables.
type Leaf struct {
	// Path of keys, such as dns, listen.
	Path  []string
	value reflect.Value
}

// Leaves lists the values below v, a pointer to a struct with json tags, in
// the order of the fields.
func Leaves(v any) []Leaf { return leaves(nil, reflect.ValueOf(v).Elem()) }

func leaves(path []string, v reflect.Value) []Leaf {
	var all []Leaf
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		field, below := v.Field(i), append(path[:len(path):len(path)], name)
		_, text := field.Addr().Interface().(encoding.TextUnmarshaler)
		if field.Kind() == reflect.Struct && !text {
			all = append(all, leaves(below, field)...)
			continue
		}
		all = append(all, Leaf{Path: below, value: field})
	}
	return all
}

// Set reads the value from text: lists are separated by commas, maps are
// written key=value,key=value.
func (l Leaf) Set(text string) error { return setText(l.value, text) }

func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.Slice:
		list := reflect.MakeSlice(v.Type(), 0, 1)
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			element := reflect.New(v.Type().Elem()).Elem()
			if err := setText(element, part); err != nil {
				return err
			}
			list = reflect.Append(list, element)
		}
		v.Set(list)
		return nil
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		for part := range strings.SplitSeq(text, ",") {
			key, value, found := strings.Cut(part, "=")
			if !found {
				return fmt.Errorf("%q is not key=value", part)
			}
			m.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(value))
		}
		v.Set(m)
		return nil
	}
	return setScalar(v, text)
}

// String is the present value, as Set reads it.
func (l Leaf) String() string {
	if !l.value.IsValid() {
		return ""
	}
	return format(l.value)
}

func format(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Map {
		return fmt.Sprint(v.Interface())
	}
	var parts []string
	if v.Kind() == reflect.Map {
		for _, key := range v.MapKeys() {
			parts = append(parts, fmt.Sprint(key, "=", v.MapIndex(key)))
		}
		return strings.Join(parts, ",")
	}
	for i := range v.Len() {
		parts = append(parts, format(v.Index(i)))
	}
	return strings.Join(parts, ",")
}
