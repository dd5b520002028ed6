package api

import (
	"encoding/json"
	"time"
)

// ObjectList are objects as they were at one revision.
type ObjectList struct {
	ClusterID string `json:"cluster_id"`
	// Revision to watch on from.
	Revision uint64   `json:"revision"`
	Objects  []Stored `json:"objects"` // sorted by kind and key
}

// Apply asks the controllers to make objects so, all of them or none, at one
// revision.
type Apply struct {
	Objects []ApplyObject `json:"objects"`
	// DryRun only tells what would change.
	DryRun bool `json:"dry_run,omitempty"`
}

// ApplyObject is one object of an Apply.
type ApplyObject struct {
	Kind string `json:"kind"`
	// Key of an object to delete; of others it follows from the object.
	Key    string          `json:"key,omitempty"`
	Object json.RawMessage `json:"object,omitempty"`
	Delete bool            `json:"delete,omitempty"`
	// Version that the object must be at; 0: it must not be there; nil: whatever
	// it is at.
	Version *uint64 `json:"version,omitempty"`
}

// Applied is what came of an Apply, or would come of it.
type Applied struct {
	ClusterID string         `json:"cluster_id"`
	Revision  uint64         `json:"revision"` // at which it is so
	Changes   []ObjectChange `json:"changes"`  // in the order of the objects
	DryRun    bool           `json:"dry_run,omitempty"`
}

// ObjectAction says what a write does to an object.
type ObjectAction string

// The actions.
const (
	ObjectCreated   ObjectAction = "created"
	ObjectChanged   ObjectAction = "changed"
	ObjectDeleted   ObjectAction = "deleted"
	ObjectUnchanged ObjectAction = "unchanged"
)

// ObjectChange is an object before and after a write.
type ObjectChange struct {
	Kind   string          `json:"kind"`
	Key    string          `json:"key"`
	Action ObjectAction    `json:"action"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// NodeDrain asks for a node to be drained, or not any more.
type NodeDrain struct {
	Draining bool `json:"draining"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Role string   `json:"role"`          // agent, controller or operator
	TTL  Duration `json:"ttl,omitzero"`  // 0: the role's usual one
	Uses int      `json:"uses,omitzero"` // 0: no limit
	Node string   `json:"node,omitempty"`
}

// LoginRequest asks for a Login with an operator's token.
type LoginRequest struct {
	Token string `json:"token"`
}

// Authorities are the certificates by which the controllers are known.
type Authorities struct {
	ClusterID string `json:"cluster_id"`
	CA        string `json:"ca"` // PEM; one or, while it is changed, two
}

// NodeList are the nodes of a cluster.
type NodeList struct {
	ClusterID string      `json:"cluster_id"`
	Revision  uint64      `json:"revision"`
	Time      time.Time   `json:"time"` // at the controller
	Nodes     []NodeState `json:"nodes"`
	// Unreached are the controllers that did not tell of their nodes.
	Unreached []string `json:"unreached,omitempty"`
}
