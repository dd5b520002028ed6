package api

import "time"

// Join asks for a certificate, the first time with a token. The answer is a
// Joined, or a refusal.
type Join struct {
	// Token lets in who has no certificate yet.
	Token string `json:"token,omitempty"`
	// ID stays for the life of a node, a controller or an operator's device; it
	// is made by whoever joins, once, and kept: a UUID.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Request is a certificate request (PKCS #10, PEM); only its key is taken.
	Request string `json:"request"`
	// Replace takes the name from another that has it and sends that one away.
	Replace bool `json:"replace,omitempty"`
	// Hosts are the addresses and names under which a controller is reached.
	Hosts []string `json:"hosts,omitempty"`
}

// Joined is a certificate and what is needed to know the controllers by.
type Joined struct {
	ClusterID   string    `json:"cluster_id"`
	Certificate string    `json:"certificate"` // PEM
	CA          string    `json:"ca"`          // PEM; one or, while it is changed, two
	Expires     time.Time `json:"expires"`
	// Renew is when it should be renewed.
	Renew time.Time `json:"renew"`
	// PeerKey is the key by which nodes believe each other; told to nodes alone.
	PeerKey []byte `json:"peer_key,omitempty"`
}

// Login is the answer to an operator's token: a token for a while.
type Login struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// ControllerJoin asks, with a controller's certificate, for a place among the
// controllers.
type ControllerJoin struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	URL  string `json:"url"`  // of its API
	Peer string `json:"peer"` // URL for the other controllers' stores; empty with a store outside
}

// ControllerJoined tells a new controller how to begin.
type ControllerJoined struct {
	ClusterID string `json:"cluster_id"`
	// Cluster are the stores' members: name=peer URL, separated by commas; empty
	// with a store outside.
	Cluster string `json:"cluster,omitempty"`
	// CAKey opens Authority, which is the sealed certificate authority.
	CAKey     []byte `json:"ca_key"`
	Authority []byte `json:"authority"`
}
