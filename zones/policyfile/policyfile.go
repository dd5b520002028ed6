// Package policyfile reads files that hold a policy and nothing else, for those
// who look at one before it is in force: "weir zone" and the agent. It tells
// what it finds with file and line. It opens no file and enforces nothing.
package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
	"github.com/weirproject/weir/zones"
)

// File is a policy with the places of its fields.
type File struct {
	Name   string
	Text   []byte
	Policy *api.Policy
	source *document.Source
}

// Parse reads a file's text. Its error joins one *document.Error per fault: for
// what is no policy, and for a second document too.
func Parse(name string, text []byte) (*File, error) {
	documents, err := document.Parse(name, text)
	if err != nil {
		return nil, err
	}
	f := &File{Name: name, Text: text}
	for _, d := range documents {
		p, is := d.Object.(*api.Policy)
		switch {
		case !is:
			return nil, d.Errorf("kind", "%s is no policy, and this file shall hold the policy alone", d.Object.Kind())
		case f.Policy != nil:
			return nil, d.Errorf("", "is a second policy: a fleet has one")
		}
		f.Policy, f.source = p, d.Source
	}
	if f.Policy == nil {
		return nil, &document.Error{File: name, Reason: "holds no policy: it begins with kind: policy"}
	}
	return f, nil
}

// At is a policy that was read already, with its place. The source may be nil.
func At(p *api.Policy, source *document.Source) *File {
	f := &File{Policy: p, source: source}
	if source != nil {
		f.Name = source.File
	}
	return f
}

// Place is the file and line of a field, such as rules[3], or of the nearest one
// around it. It fits zones.ExplainOptions.
func (f *File) Place(field string) (file string, line int) {
	if f.source == nil {
		return f.Name, 0
	}
	e := f.source.Errorf(field, "")
	return e.File, e.Line
}

// Check runs the policy's tests against a view of it, and looks for what is
// hardly meant, which is a warning.
func (f *File) Check(v *zones.View) []api.ZoneFinding {
	var found []api.ZoneFinding
	if f.source == nil {
		f.source = &document.Source{File: f.Name}
	}
	found = append(found, Findings(f.source.Locate(v.Check()))...)
	for _, w := range v.Lint() {
		for _, finding := range Findings(f.source.Errorf(w.Field, "%s", w.Reason)) {
			finding.Warning = true
			found = append(found, finding)
		}
	}
	return found
}

// Findings are an error's faults with their places.
func Findings(err error) []api.ZoneFinding {
	var found []api.ZoneFinding
	for _, e := range document.Errors(err) {
		found = append(found, api.ZoneFinding{File: e.File, Line: e.Line, Column: e.Column, Field: e.Field, Reason: e.Reason})
	}
	return found
}

// Faults joins the findings that are no warnings; nil when there are none.
func Faults(found []api.ZoneFinding) error {
	var faults []error
	for _, f := range found {
		if !f.Warning {
			faults = append(faults, &document.Error{File: f.File, Line: f.Line, Column: f.Column, Field: f.Field, Reason: f.Reason})
		}
	}
	return errors.Join(faults...)
}

// Cut parts the text of a file with several documents around the one that the
// line, counted from 1, is in. The parts joined are the text.
func Cut(text []byte, line int) (before, document, after []byte) {
	begin, n := 0, 1
	for at := 0; at < len(text); n++ {
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		if l := bytes.TrimRight(text[at:next], " \t\r\n"); bytes.Equal(l, []byte("---")) {
			if n >= line {
				return text[:begin], text[begin:at], text[at:]
			}
			begin = next
		}
		at = next
	}
	return text[:begin], text[begin:], nil
}

// Replace puts another document in the place of the one that the line is in.
func Replace(text []byte, line int, with []byte) []byte {
	before, _, after := Cut(text, line)
	out := append(append(bytes.Clone(before), bytes.TrimRight(with, "\n")...), '\n')
	return append(out, after...)
}

// Diff tells the flows that one policy newly allows and denies.
func Diff(old, now *zones.View) api.ZoneDiff {
	change := zones.Diff(old, now)
	return api.ZoneDiff{Allowed: flows(change.Allowed), Denied: flows(change.Denied)}
}

func flows(all []zones.Flow) []api.ZoneFlow {
	told := []api.ZoneFlow{}
	for _, f := range all {
		told = append(told, api.ZoneFlow{From: f.From.String(), To: f.To.String(), Ports: f.Ports, Family: f.Family, Via: f.Via})
	}
	return told
}

// Summary of a difference, in a few words.
func Summary(d api.ZoneDiff) string {
	if d.Empty() {
		return "allows the same as before"
	}
	first := func(flows []api.ZoneFlow) string {
		text := fmt.Sprintf("%s → %s", flows[0].From, flows[0].To)
		for i, p := range flows[0].Ports {
			if i == 3 {
				return text + " …"
			}
			text += " " + p.String()
		}
		if len(flows) > 1 {
			text += fmt.Sprintf(" and %d more", len(flows)-1)
		}
		return text
	}
	switch {
	case len(d.Denied) == 0:
		return "opens " + first(d.Allowed)
	case len(d.Allowed) == 0:
		return "closes " + first(d.Denied)
	}
	return "opens " + first(d.Allowed) + "; closes " + first(d.Denied)
}

// Names looks for names that mean nothing in the policy itself, without any
// state: its tests are left out, since most zones are empty then.
func (f *File) Names(now time.Time) []api.ZoneFinding {
	alone := *f.Policy
	alone.Tests = nil
	return Findings(f.source.Locate(zones.Bind(&alone, zones.State{}, now).Check()))
}
