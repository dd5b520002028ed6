package marathon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// raw is a definition as it was sent, by its keys.
type raw = map[string]json.RawMessage

// answered are keys that answers have and definitions do not: clients that send
// back what they got are not refused.
var answered = []string{
	"tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "lastTaskFailure", "readinessCheckResults",
	"taskStats", "ports", "uris", "version", "versionInfo", "user", "executor", "residency", "ipAddress", "storeUrls", "pods", "enforceRole",
}

// unsupported are keys of Marathon that are refused by name, with why.
var unsupported = map[string]string{
	"residency":         "is not supported: volumes of the cluster are not",
	"ipAddress":         "is not supported: use networks",
	"storeUrls":         "is not supported: use fetch",
	"executorResources": "is not supported: tasks have no executor of their own",
	"check":             "is not supported: use healthChecks",
	"pods":              "is not supported: a pod is no app",
}

// body reads JSON.
func body[T any](r *http.Request) (T, error) {
	var value T
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return value, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&value); err != nil {
		return value, badJSON(err)
	}
	if d.More() {
		return value, refuse(http.StatusBadRequest, "Invalid JSON: something follows the value")
	}
	return value, nil
}

// badJSON is 422 for a value of a wrong type, and 400 for what is no JSON.
func badJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return invalid([]Detail{{pathOf(wrong.Field), []string{"a " + wrong.Value + " is not what is expected here"}}})
	}
	return refuse(http.StatusBadRequest, "Invalid JSON: %v", err)
}

// decodeApp makes a complete and valid app of what was sent. id is what the URL
// says; empty: the definition must have one. base are ids' group.
func decodeApp(sent raw, base, id string) (*api.App, error) {
	var details []Detail
	sent, details = modern(maps.Clone(sent))
	a := api.NewApp()
	for _, key := range slices.Sorted(maps.Keys(sent)) {
		if why, ok := unsupported[key]; ok && !isNull(sent[key]) {
			details = add(details, "/"+key, why)
			delete(sent, key)
		} else if slices.Contains(answered, key) && key != "user" {
			delete(sent, key)
		} else if isNull(sent[key]) {
			delete(sent, key)
		} else {
			details = unknown(details, "/"+key, sent[key], fieldType(reflect.TypeFor[api.App](), key))
		}
	}
	text, err := json.Marshal(sent)
	if err != nil {
		return nil, badJSON(err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		var wrong *json.UnmarshalTypeError
		if !errors.As(err, &wrong) {
			return nil, badJSON(err)
		}
		return nil, invalid(add(details, pathOf(wrong.Field), "a "+wrong.Value+" is not what is expected here"))
	}
	if id != "" {
		if a.ID != "" && absolute(base, a.ID) != id {
			details = add(details, "/id", "is not the app that the address names, "+id)
		}
		a.ID = id
	} else if a.ID == "" {
		details = add(details, "/id", "is missing")
	} else {
		a.ID = absolute(base, a.ID)
	}
	// The defaults, as answers write them.
	if a.Role == "*" {
		a.Role = ""
	}
	if len(a.AcceptedResourceRoles) == 1 && a.AcceptedResourceRoles[0] == "*" {
		a.AcceptedResourceRoles = nil
	}
	a.Complete()
	details = append(details, detailsOf("", a.Validate())...)
	if a.TTY && a.Container == nil {
		details = add(details, "/tty", "is not supported without a container")
	}
	if len(details) > 0 {
		return nil, invalid(details)
	}
	return &a, nil
}

func isNull(text json.RawMessage) bool { return string(bytes.TrimSpace(text)) == "null" }

// absolute is an id below a group.
func absolute(group, id string) string {
	a := api.App{ID: id}
	if !strings.HasPrefix(id, "/") {
		a.ID = group + "/" + id
	}
	a.Complete()
	return a.ID
}

// fieldType is the type of a field by its key; nil when there is none.
func fieldType(t reflect.Type, key string) reflect.Type {
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name == key && name != "-" {
			return t.Field(i).Type
		}
	}
	return nil
}

// unknown adds each key of the value that the type does not have, by its path.
func unknown(list []Detail, path string, text json.RawMessage, t reflect.Type) []Detail {
	if t == nil {
		return add(list, path, "is not supported")
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[json.RawMessage]() || t == reflect.TypeFor[api.AppUnreachable]() && !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")):
	case t.Kind() == reflect.Struct:
		var inner raw
		if json.Unmarshal(text, &inner) == nil {
			for _, key := range slices.Sorted(maps.Keys(inner)) {
				if !isNull(inner[key]) {
					list = unknown(list, path+"/"+key, inner[key], fieldType(t, key))
				}
			}
		}
	case t.Kind() == reflect.Slice:
		var inner []json.RawMessage
		if json.Unmarshal(text, &inner) == nil {
			for i, one := range inner {
				list = unknown(list, path+"("+strconv.Itoa(i)+")", one, t.Elem())
			}
		}
	}
	return list
}

// overlay is a definition with the keys of an update in the place of its own, as
// in an update of Marathon; null takes a key away.
func overlay(old *api.App, update raw) (raw, error) {
	text, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	all := raw{}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	var networks []api.AppNetwork
	_ = json.Unmarshal(update["networks"], &networks) // decodeApp tells what is wrong
	// What is there by default, or excludes what is new, gives way to it.
	for given, gives := range map[string]string{"cmd": "args", "args": "cmd"} {
		if update[given] != nil && update[gives] == nil && !isNull(update[given]) {
			delete(all, gives)
		}
	}
	if len(networks) > 0 && networks[0].Mode != api.NetworkModeHost && update["portDefinitions"] == nil {
		delete(all, "portDefinitions")
	}
	for key, value := range update {
		if isNull(value) {
			delete(all, key)
		} else {
			all[key] = value
		}
	}
	return all, nil
}
