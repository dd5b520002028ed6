package api

import (
	"encoding/json"
	"time"
)

// Stored is an object as the controllers keep it.
type Stored struct {
	Kind string `json:"kind"`
	Key  string `json:"key"`
	// Version is the revision of the object's last change: what If-Match asks for.
	Version uint64          `json:"version"`
	Object  json.RawMessage `json:"object"`
}

// WatchEvent is one change of an object, in a watch.
type WatchEvent struct {
	Type string `json:"type"` // put, delete, or sync: all that was there is told
	// Revision to watch on from.
	Revision uint64  `json:"revision"`
	Object   *Stored `json:"object,omitempty"` // of a deleted one, without Object
}

// NodeState is a joined node as the controllers see it.
type NodeState struct {
	Node Node   `json:"node"`
	ID   string `json:"id"` // stays over changes of name and address
	// Health as found by heartbeats and probes.
	Health NodeHealth `json:"health"`
	Since  time.Time  `json:"since"` // when Health became so
	// Controller that the node's stream comes from; empty when it has none.
	Controller string `json:"controller,omitempty"`
	// Applied is the last revision that the node's kernel holds, Wanted the
	// newest that is for it. Lag is how long the oldest change that it has not
	// applied has waited.
	Applied uint64    `json:"applied"`
	Wanted  uint64    `json:"wanted"`
	Lag     Duration  `json:"lag"`
	Behind  int       `json:"behind"`        // changes that it has not applied
	Seen    time.Time `json:"seen,omitzero"` // its last report
	Joined  time.Time `json:"joined"`
	Version string    `json:"version,omitempty"`
	// Problems of the node's components, in words.
	Problems []string `json:"problems,omitempty"`
}

// Controller is a member of the controllers' cluster.
type Controller struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	URL    string `json:"url"` // of its API
	Peer   string `json:"peer,omitempty"`
	Leader bool   `json:"leader,omitempty"`
	// Healthy tells whether it has answered a moment ago.
	Healthy bool   `json:"healthy"`
	Version string `json:"version,omitempty"`
	// StoreSize is the size of its database, in bytes.
	StoreSize int64 `json:"store_size,omitempty"`
}

// Token lets nodes, controllers or people in for the first time.
type Token struct {
	ID   string `json:"id"`
	Role string `json:"role"` // agent, controller or operator
	// Uses that are left; 0 means no limit.
	Uses    int       `json:"uses,omitempty"`
	Expires time.Time `json:"expires"`
	// Node restricts it to a node of this name.
	Node    string    `json:"node,omitempty"`
	Created time.Time `json:"created"`
	// Secret is the whole token; told only to whoever makes it.
	Secret string `json:"secret,omitempty"`
}

// AuditRecord is one write, or one refusal, that the controllers remember.
type AuditRecord struct {
	Time     time.Time `json:"time"`
	Subject  string    `json:"subject"` // node/a1, operator/ann, or anonymous
	Address  string    `json:"address"`
	Verb     string    `json:"verb"`
	Noun     string    `json:"noun"`
	Revision uint64    `json:"revision,omitempty"` // that came of it
	Refused  string    `json:"refused,omitempty"`  // why it was not done
}

// Cluster is what a controller says of the cluster.
type Cluster struct {
	ID string `json:"id"`
	// Epoch names the history that revisions belong to; a restore begins another.
	Epoch    string `json:"epoch"`
	Revision uint64 `json:"revision"`
	// Controller that answers, and the one that leads; empty while none does.
	Controller string `json:"controller"`
	Leader     string `json:"leader,omitempty"`
	Version    string `json:"version"`
}

// Fault is what is wrong with one field of a document that was sent.
type Fault struct {
	Kind   string `json:"kind,omitempty"`
	Key    string `json:"key,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

func (f Fault) String() string {
	text := f.Reason
	if f.Field != "" {
		text = f.Field + ": " + text
	}
	if f.Kind != "" {
		text = f.Kind + " " + f.Key + ": " + text
	}
	return text
}
