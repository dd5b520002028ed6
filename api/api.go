// Package api holds Weir's nouns: the documents that people write (Service,
// Node, Record, Policy), the wanted state of one node (Snapshot) and what the
// node observes (Status). It only holds values: it reads no file, speaks to
// nobody and imports nothing but the standard library, so that every other
// package can share one type for one thing.
//
// Every type marshals with encoding/json. The json tag is also the key that
// people write in YAML (see package document).
package api

import (
	"errors"
	"fmt"
	"strings"
)

// Object is a document of a kind, as people write it.
type Object interface {
	// Kind is the word after "kind:", in lower case.
	Kind() string
	// Key names the object among those of its kind.
	Key() string
	// Validate checks the values; its error joins one *FieldError per fault.
	Validate() error
}

// FieldError says what is wrong with one field of an object.
type FieldError struct {
	Field  string // path below the document, such as "backends[1].address"
	Reason string // what was expected and what was found
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// faults collects field errors.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
}

func (f faults) err() error { return errors.Join(f...) }

// FieldErrors lists the field errors inside err, in order.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) {
	case nil:
		return nil
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, inner := range e.Unwrap() {
			all = append(all, FieldErrors(inner)...)
		}
		return all
	default:
		return FieldErrors(errors.Unwrap(err))
	}
}

// DefaultNamespace is where a service without a namespace lives.
const DefaultNamespace = "default"

// isLabel tells whether s is one DNS label of RFC 1123: letters, digits and
// inner hyphens, 1 to 63 characters, in lower case.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

const labelRule = "must be a DNS label (a-z, 0-9 and inner hyphens, at most 63 characters)"

// checkName adds a fault unless the name consists of DNS labels and dots.
func checkName(f *faults, field, name string) {
	if name == "" {
		f.add(field, "is missing")
		return
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			f.add(field, "%q %s", name, labelRule)
			return
		}
	}
}
