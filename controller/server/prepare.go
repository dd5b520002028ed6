package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
)

// write is one object to make, replace or delete.
type write struct {
	kind   hub.Kind
	key    string
	object api.Object // nil: to be deleted
	// version that it must be at; 0: it must not be there; nil: whatever.
	version *uint64

	// What was found.
	before api.Stored
	raw    []byte // of object
}

// action is what the write does.
func (w *write) action() api.ObjectAction {
	switch {
	case w.object == nil:
		return api.ObjectDeleted
	case w.before.Version == 0:
		return api.ObjectCreated
	case bytes.Equal(w.before.Object, w.raw):
		return api.ObjectUnchanged
	}
	return api.ObjectChanged
}

// prepare checks what was sent by itself.
func prepare(kinds map[string]hub.Kind, o api.ApplyObject) (*write, []api.Fault) {
	k, ok := kinds[o.Kind]
	if !ok {
		return nil, []api.Fault{{Kind: o.Kind, Key: o.Key, Field: "kind", Reason: fmt.Sprintf("%q is no kind that the controllers keep", o.Kind)}}
	}
	w := &write{kind: k, key: o.Key, version: o.Version}
	if o.Delete {
		if err := hub.CheckKey(o.Key); err != nil {
			return nil, []api.Fault{{Kind: o.Kind, Key: o.Key, Field: "key", Reason: err.Error()}}
		}
		return w, nil
	}
	object := k.New()
	d := json.NewDecoder(bytes.NewReader(o.Object))
	d.DisallowUnknownFields()
	if err := d.Decode(object); err != nil {
		return nil, []api.Fault{{Kind: o.Kind, Key: o.Key, Field: fieldOf(err), Reason: strings.TrimPrefix(err.Error(), "json: ")}}
	}
	w.object, w.key = object, k.Key(object)
	if err := object.Validate(); err != nil {
		return nil, faultsOf(o.Kind, w.key, err)
	}
	var err error
	if w.raw, err = json.Marshal(object); err != nil {
		return nil, faultsOf(o.Kind, w.key, err)
	}
	if len(w.raw) > commitBytes {
		return nil, faultsOf(o.Kind, w.key, fmt.Errorf("takes %d bytes, more than the %d that an object may", len(w.raw), commitBytes))
	}
	return w, nil
}

// fieldOf is the field that a decoder's error is about.
func fieldOf(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return wrong.Field
	}
	if _, name, ok := strings.Cut(err.Error(), "unknown field "); ok {
		return strings.Trim(name, `"`)
	}
	return ""
}

func faultsOf(kind, key string, err error) []api.Fault {
	var faults []api.Fault
	for _, f := range api.FieldErrors(err) {
		faults = append(faults, api.Fault{Kind: kind, Key: key, Field: f.Field, Reason: f.Reason})
	}
	if len(faults) == 0 {
		faults = []api.Fault{{Kind: kind, Key: key, Reason: err.Error()}}
	}
	return faults
}

// prepareAll checks each of what was sent, and that nothing is there twice.
func prepareAll(objects []api.ApplyObject) ([]*write, error) {
	kinds := hub.Kinds()
	var all []*write
	var faults []api.Fault
	seen := map[string]bool{}
	for _, o := range objects {
		w, wrong := prepare(kinds, o)
		faults = append(faults, wrong...)
		if w == nil {
			continue
		}
		if name := w.kind.Name + "/" + w.key; seen[name] {
			faults = append(faults, api.Fault{Kind: w.kind.Name, Key: w.key, Reason: "is there twice"})
		} else {
			seen[name] = true
		}
		all = append(all, w)
	}
	if len(faults) > 0 {
		return nil, &statusError{http.StatusUnprocessableEntity, &faultyError{faults}}
	}
	return all, nil
}
