package api

import "time"

// ZoneFinding is what is wrong with a policy's file, or hardly meant.
type ZoneFinding struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	// Warning: the policy can be enforced all the same.
	Warning bool `json:"warning,omitempty"`
}

// ZoneDiff is what one policy allows and another does not.
type ZoneDiff struct {
	Allowed []ZoneFlow `json:"allowed"` // newly
	Denied  []ZoneFlow `json:"denied"`  // newly
}

// Empty tells whether both allow the same.
func (d ZoneDiff) Empty() bool { return len(d.Allowed)+len(d.Denied) == 0 }

// ZoneFlow is every flow from one set of addresses to another on some ports,
// the sets in the words of people: zones, networks, what is excepted.
type ZoneFlow struct {
	From  string      `json:"from"`
	To    string      `json:"to"`
	Ports []PortRange `json:"ports"`
	// Family is ipv4 or ipv6 when addresses of that family alone are meant.
	Family string `json:"family,omitempty"`
	// Via is the zone whose nodes pass the flow on; empty: it goes straight.
	Via string `json:"via,omitempty"`
}

// ZonePolicyFile asks what a policy's file means on a node.
type ZonePolicyFile struct {
	File string `json:"file"` // its name, for messages
	Text string `json:"text"`
}

// ZoneApply asks to enforce a policy.
type ZoneApply struct {
	ZonePolicyFile
	// Confirm is how long the policy stays without being confirmed; 0: it is
	// confirmed at once. At most a day.
	Confirm Duration `json:"confirm,omitzero"`
	// Force applies it though it cuts controllers, or the caller, off.
	Force bool `json:"force,omitempty"`
	// By is who asks, for the history.
	By string `json:"by,omitempty"`
	// SSH is the caller's SSH_CONNECTION: client, its port, server, its port.
	SSH string `json:"ssh,omitempty"`
}

// ZoneRollback asks to enforce a policy of the history again.
type ZoneRollback struct {
	ID      int      `json:"id"`
	Confirm Duration `json:"confirm,omitzero"`
	Force   bool     `json:"force,omitempty"`
	By      string   `json:"by,omitempty"`
	SSH     string   `json:"ssh,omitempty"`
}

// ZoneChange is one policy of the history.
type ZoneChange struct {
	ID   int       `json:"id"` // counts up from 1
	Time time.Time `json:"time"`
	By   string    `json:"by"`
	// Summary of what it opened and closed.
	Summary string `json:"summary"`
	// State is in-force, pending, replaced, or rolled-back, and Reason why.
	State  ZoneChangeState `json:"state"`
	Reason string          `json:"reason,omitempty"`
	// Deadline by which it must be confirmed; zero when it need not be.
	Deadline time.Time `json:"deadline,omitzero"`
}

// ZoneChangeState is what has become of a change.
type ZoneChangeState string

// The states of a change.
const (
	ChangePending    ZoneChangeState = "pending"     // enforced until its deadline
	ChangeInForce    ZoneChangeState = "in-force"    // enforced, in the state's files
	ChangeReplaced   ZoneChangeState = "replaced"    // by a later one
	ChangeRolledBack ZoneChangeState = "rolled-back" // it was never confirmed
)

// ZoneApplied is a change that is enforced.
type ZoneApplied struct {
	ZoneChange
	Diff     ZoneDiff      `json:"diff"`
	Warnings []ZoneFinding `json:"warnings,omitempty"`
	// File that has the policy, or will have it once it is confirmed.
	File string `json:"file"`
}
