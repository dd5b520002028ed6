package hub

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/weirproject/weir/api"
)

// The store's layout, as far as nodes see it: everything is below Prefix, which
// is what the hub watches.
//
//	state/objects/<kind>/<key>   what people have declared, as JSON
//	state/effective/<kind>/<key> what follows from apps: services, in the same form
//	state/tasks/<id>             a TaskEntry
//	state/nodes/<name>           a NodeEntry: what a joined node says of itself
//	state/health/<name>          suspect or dead; no key: alive
//	state/vips/<name.namespace>  api.VIPAddresses that a named VIP was allotted
//	state/subnets/<network>/<node> api.Subnet
//	state/gate                   written by each commit that could clash with another, or deletes
const (
	Prefix = "state/"
	// ObjectPrefix is before the kind and the key of what people have declared.
	ObjectPrefix   = Prefix + "objects/"
	effectPrefix   = Prefix + "effective/"
	taskPrefix     = Prefix + "tasks/"
	nodePrefix     = Prefix + "nodes/"
	healthPrefix   = Prefix + "health/"
	vipPrefix      = Prefix + "vips/"
	subnetPrefix   = Prefix + "subnets/"
	GateKey        = Prefix + "gate"
	keyPartMaximum = 512
)

// ObjectKey is where an object is kept.
func ObjectKey(kind, key string) string { return ObjectPrefix + kind + "/" + key }

// EffectKey is where an object that follows from an app is kept.
func EffectKey(kind, key string) string { return effectPrefix + kind + "/" + key }

// TaskKey is where a task is kept, NodeKey a node's facts, HealthKey its
// health, VIPKey an allotment, SubnetKey a subnet.
func TaskKey(id string) string              { return taskPrefix + id }
func NodeKey(name string) string            { return nodePrefix + name }
func HealthKey(name string) string          { return healthPrefix + name }
func VIPKey(name string) string             { return vipPrefix + name }
func SubnetKey(network, node string) string { return subnetPrefix + network + "/" + node }

// TaskEntry is a task as the controllers keep it: what its node shall run, and
// what everybody knows of it.
type TaskEntry struct {
	Task api.Task     `json:"task"`
	Spec api.TaskSpec `json:"spec"`
}

// NodeEntry is what a joined node says of itself.
type NodeEntry struct {
	ID      string   `json:"id"`
	Node    api.Node `json:"node"`
	Version string   `json:"version,omitempty"`
}

// Kind is a kind of objects that people declare.
type Kind struct {
	Name string
	// New makes an empty object to decode into.
	New func() api.Object
	// Key of an object among those of its kind.
	Key func(api.Object) string
}

// Kinds that the controllers keep, by name.
func Kinds() map[string]Kind {
	key := func(o api.Object) string { return o.Key() }
	all := []Kind{
		{"service", func() api.Object { return new(api.Service) }, func(o api.Object) string { return api.ServiceKey(o.(*api.Service)) }},
		{"record", func() api.Object { return new(api.Record) }, key},
		{"policy", func() api.Object { return new(api.Policy) }, func(api.Object) string { return "policy" }},
		{"node", func() api.Object { return new(api.Node) }, key},
		{"network", func() api.Object { return new(api.ContainerNetwork) }, key},
	}
	kinds := map[string]Kind{}
	for _, k := range all {
		kinds[k.Name] = k
	}
	return kinds
}

// Decode reads an object of the kind.
func (k Kind) Decode(raw []byte) (api.Object, error) {
	o := k.New()
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, fmt.Errorf("read the %s: %w", k.Name, err)
	}
	return o, nil
}

// CheckKey tells what is wrong with an object's key in a request.
func CheckKey(key string) error {
	if key == "" || len(key) > keyPartMaximum || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q is no key: 1 to %d characters, none of them a control character", key, keyPartMaximum)
	}
	return nil
}
