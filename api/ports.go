package api

// The ports by which Weir's own parts speak to each other, between nodes.
const (
	// PeerPort is where agents watch each other, by UDP; by TCP, where nobody
	// listens, they see whether a node is there at all.
	PeerPort = 9466
	// ControllerPort is where controllers serve their API, by TCP.
	ControllerPort = 8443
	// StorePort is where the controllers' stores speak to each other, by TCP.
	StorePort = 2380
)
