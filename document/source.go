package document

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weirproject/weir/api"
)

// Source remembers where the fields of a decoded document stand.
type Source struct {
	File string
	// Line on which the document starts.
	Line   int
	fields map[string]position
}

type position struct{ line, column int }

func newSource(file string, root *yaml.Node) *Source {
	s := &Source{File: file, fields: map[string]position{}}
	if root != nil {
		s.Line = root.Line
		s.fields[""] = position{root.Line, root.Column}
	}
	return s
}

// Errorf makes an error at the field, or at the nearest one around it that is
// written in the file.
func (s *Source) Errorf(field, format string, args ...any) *Error {
	at := field
	for {
		if p, ok := s.fields[at]; ok {
			return &Error{File: s.File, Line: p.line, Column: p.column, Field: field, Reason: fmt.Sprintf(format, args...)}
		}
		if at == "" {
			return &Error{File: s.File, Field: field, Reason: fmt.Sprintf(format, args...)}
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
}

// Locate gives every api.FieldError inside err its place in the file; any
// other error is placed at the document's start.
func (s *Source) Locate(err error) error {
	if err == nil {
		return nil
	}
	fields := api.FieldErrors(err)
	if len(fields) == 0 {
		return s.Errorf("", "%v", err)
	}
	located := make([]error, len(fields))
	for i, f := range fields {
		located[i] = s.Errorf(f.Field, "%s", f.Reason)
	}
	return errors.Join(located...)
}

func (s *Source) at(n *yaml.Node, field, reason string) *Error {
	return &Error{File: s.File, Line: n.Line, Column: n.Column, Field: field, Reason: reason}
}
