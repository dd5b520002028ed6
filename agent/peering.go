package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/weirproject/weir/agent/peers"
	"github.com/weirproject/weir/api"
)

// PeersConfig says how nodes watch each other. A joined node has the key from
// its controllers; one that lives by files needs one in its own file, the same
// on every node, and watches nobody without.
type PeersConfig struct {
	Port uint16 `json:"port"` // UDP and TCP; 0: nobody is watched
	Key  string `json:"key"`  // at least 16 characters
}

func defaultPeers() PeersConfig { return PeersConfig{Port: peers.Port} }

func (c PeersConfig) validate() error {
	if c.Key != "" && len(c.Key) < 16 {
		return fault("peers.key", "has %d characters and needs at least 16", len(c.Key))
	}
	return nil
}

// newPeers makes the detector; none without a port or a key.
func (a *Agent) newPeers() error {
	key := []byte(a.config.Peers.Key)
	if len(key) == 0 && a.joined != nil {
		key = a.joined.identity.get().PeerKey
	}
	if len(key) == 0 || a.config.Peers.Port == 0 {
		return nil
	}
	d, err := peers.New(peers.Options{
		Self: a.config.Node.Name, Key: key, Listen: netip.AddrPortFrom(netip.Addr{}, a.config.Peers.Port),
		Log: a.log, Registerer: a.registry, OnChange: a.peerChanged,
	})
	if err != nil {
		return fmt.Errorf("set up the watch of other nodes (set peers.port to 0 to go without): %w", err)
	}
	a.peers = d
	return nil
}

// runPeers watches until ctx ends. The agent before this one may still have the
// socket.
func (a *Agent) runPeers(ctx context.Context) error {
	if a.peers == nil {
		return nil
	}
	failing := false
	for {
		err := a.peers.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			a.log.Warn("other nodes are not watched; trying again", "error", err)
		}
		failing = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// peerChanged passes on what the nodes found out.
func (a *Agent) peerChanged(node string, h api.NodeHealth) {
	a.pokeStates()
	if a.joined != nil {
		a.joined.tellPeer(node, h)
	}
}

// vouch notes that this node is heard from outside.
func (a *Agent) vouch() {
	if a.peers != nil {
		a.peers.Vouch()
	}
}

// watchNodes has the snapshot's nodes watched.
func (a *Agent) watchNodes(s, old *api.Snapshot) {
	if a.peers == nil || old != nil && len(s.Nodes) == len(old.Nodes) && (len(s.Nodes) == 0 || &s.Nodes[0] == &old.Nodes[0]) {
		return
	}
	a.peers.Set(s.Nodes)
}
