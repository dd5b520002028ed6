package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A node holds one stream from a controller: lines of JSON, a Frame each,
// compressed as the request's Accept-Encoding allows. It begins with a hello;
// then comes the whole snapshot, unless the node already has what follows.
// The node's own Reports go the other way, lines of JSON on a request of its
// own that stays open.

// Whole is a snapshot frame's snapshot, unpacked.
func (f *Frame) Whole() (*Snapshot, error) {
	if f.Snapshot == nil {
		return nil, errors.New("a snapshot frame has no snapshot")
	}
	if f.Packed == nil {
		return f.Snapshot, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(f.Packed))
	if err != nil {
		return nil, fmt.Errorf("unpack the snapshot: %w", err)
	}
	var s Snapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return nil, fmt.Errorf("unpack the snapshot: %w", err)
	}
	s.Node, s.Run = f.Snapshot.Node, f.Snapshot.Run
	return &s, nil
}

// FrameType says what a frame is.
type FrameType string

// The types of frames. A node skips the types that it does not know.
const (
	FrameHello     FrameType = "hello"     // the first; says whether a snapshot follows
	FrameSnapshot  FrameType = "snapshot"  // the whole wanted state
	FrameChange    FrameType = "change"    // what leads to the next revision
	FrameHeartbeat FrameType = "heartbeat" // nothing is new
	FrameProbe     FrameType = "probe"     // asks for a look at another node
	FrameCommand   FrameType = "command"   // asks the node to do something once
	FrameBye       FrameType = "bye"       // the controller ends the stream
)

// Frame is one line of a node's stream.
type Frame struct {
	Type FrameType `json:"type"`
	// Epoch names the history that revisions belong to: after a restore from a
	// backup it is another one, and a node takes the whole snapshot.
	Epoch string `json:"epoch,omitempty"`
	// Revision of the controller's state when the frame was written.
	Revision uint64 `json:"revision,omitempty"`
	// Time at the controller.
	Time     time.Time `json:"time,omitzero"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	// Packed is the part of a snapshot that all nodes share: JSON in gzip. Then
	// Snapshot has the revision, the node and what it runs. Who asks for packed
	// snapshots (?packed=gzip) gets them.
	Packed  []byte          `json:"packed,omitempty"`
	Change  *SnapshotChange `json:"change,omitempty"`
	Probe   *Probe          `json:"probe,omitempty"`
	Command *Command        `json:"command,omitempty"`
	Bye     *Bye            `json:"bye,omitempty"`
	// Resumed tells, in a hello, that the node has all up to its revision.
	Resumed bool `json:"resumed,omitempty"`
	// ClusterID and Controllers, in a hello: where else the node may turn to.
	ClusterID   string   `json:"cluster_id,omitempty"`
	Controllers []string `json:"controllers,omitempty"` // URLs
}

// Probe asks a node to try whether it reaches another.
type Probe struct {
	ID   string `json:"id"`
	Node Node   `json:"node"`
	// Within is how long it may take.
	Within Duration `json:"within"`
}

// Command is a request to a node for something that is no wanted state, such
// as a task's log. Its answer comes in a Report.
type Command struct {
	ID   string `json:"id"`
	Verb string `json:"verb"`
	// Arguments by name.
	Arguments map[string]string `json:"arguments,omitempty"`
}

// Bye says why a controller ends a stream, and when to try again.
type Bye struct {
	Reason string   `json:"reason"`
	Retry  Duration `json:"retry,omitzero"`
	// Final tells that the node has been removed: there is no way back but to
	// join anew.
	Final bool `json:"final,omitempty"`
}

// Report is one line of what a node tells a controller. Only what has changed
// is filled in.
type Report struct {
	// Sequence grows by one with each report of a stream.
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time,omitzero"`
	// Applied is the last revision that every component has applied.
	Applied uint64 `json:"applied,omitempty"`
	// Wanted is the newest revision that the node has.
	Wanted uint64  `json:"wanted,omitempty"`
	Status *Status `json:"status,omitempty"`
	// Tasks that are new or differ since the last report; with All, these are all.
	Tasks []TaskStatus `json:"tasks,omitempty"`
	All   bool         `json:"all,omitempty"`
	Probe *ProbeResult `json:"probe,omitempty"`
	// Peers whose health this node sees otherwise than before.
	Peers   map[string]NodeHealth `json:"peers,omitempty"`
	Result  *CommandResult        `json:"result,omitempty"`
	Leaving bool                  `json:"leaving,omitempty"` // the agent ends on purpose and will be back
}

// ProbeResult answers a Probe.
type ProbeResult struct {
	ID      string   `json:"id"`
	Reached bool     `json:"reached"`
	Took    Duration `json:"took,omitzero"`
	Error   string   `json:"error,omitempty"`
}

// CommandResult answers a Command, in one or more parts.
type CommandResult struct {
	ID    string `json:"id"`
	Data  []byte `json:"data,omitempty"`
	Error string `json:"error,omitempty"`
	Last  bool   `json:"last,omitempty"`
}
