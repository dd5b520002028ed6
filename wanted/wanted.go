// Package wanted judges a whole wanted state before anybody applies it: all
// that a compiler on a node would refuse is refused here, by the object that is
// at fault. Agents that live by files and the controllers share it.
package wanted

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
	"github.com/weirproject/weir/vip"
	"github.com/weirproject/weir/zones"
)

// Options of Check.
type Options struct {
	// Names are the options that the DNS proxy compiles with; its Previous table
	// makes a check cost what has changed.
	Names dnsproxy.Options
	Now   time.Time
}

// Fault is what is wrong with one object.
type Fault struct {
	Kind string // service, record or policy; empty: no single object is at fault
	Key  string // as in the object's Key; of a service, api.ServiceKey
	// Err has the fields, where it is about fields: see api.FieldErrors.
	Err error
}

func (f Fault) Error() string {
	if f.Kind == "" {
		return f.Err.Error()
	}
	return fmt.Sprintf("%s %s: %v", f.Kind, f.Key, f.Err)
}

func (f Fault) Unwrap() error { return f.Err }

// Check lists the faults of a wanted state, and returns the table of names that
// it made; nil when the names are at fault.
func Check(s *api.Snapshot, o Options) (*dnsproxy.Table, []Fault) {
	var faults []Fault
	if s.Policy != nil {
		if err := zones.Bind(s.Policy, zones.StateOf(s), o.Now).Check(); err != nil {
			faults = append(faults, Fault{"policy", "policy", err})
		}
	}
	for _, skip := range vip.Check(s) {
		faults = append(faults, Fault{"service", skip.Service + "/" + string(skip.Protocol), &api.FieldError{Field: skip.Field, Reason: skip.Reason}})
	}
	names, err := dnsproxy.Compile(s, o.Names)
	if err != nil {
		return nil, append(faults, nameFaults(s, err)...)
	}
	return names, faults
}

// nameFaults gives the faults of names to the records that they are about.
func nameFaults(s *api.Snapshot, err error) []Fault {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var faults []Fault
	for _, one := range all {
		fault := Fault{Err: fmt.Errorf("compile the DNS names: %w", one)}
		for i := range s.Records {
			r := &s.Records[i]
			if reason, ok := strings.CutPrefix(one.Error(), fmt.Sprintf("record %s (%s): ", r.Name, r.Type)); ok {
				fault = Fault{"record", r.Key(), errors.New(reason)}
				break
			}
		}
		faults = append(faults, fault)
	}
	return faults
}
