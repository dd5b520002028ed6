package dnsproxy

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// client is who asks. The address is read only where it matters: most answers
// are the same for all.
type client struct {
	tcp    bool
	sender *unix.RawSockaddrInet6 // of a datagram; valid until the next batch
	peer   netip.Addr             // of a connection
}

// valid tells whether there is an address: the proxy itself has none.
func (c *client) valid() bool { return c.sender != nil || c.peer.IsValid() }

// addr is the client's address, not valid when it is the proxy itself.
func (c *client) addr() netip.Addr {
	if c.sender != nil {
		return address(c.sender).Addr()
	}
	return c.peer
}
