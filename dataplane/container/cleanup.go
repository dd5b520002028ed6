package container

import (
	"context"
	"log/slog"
)

// Cleanup removes everything of ours: bridges, tunnels, veth pairs, routes,
// rules and the nftables table, and gives how many objects these were. That the
// node forwards packets stays: others may rely on it by now.
func Cleanup() (int, error) {
	s := New(Options{Log: slog.New(slog.DiscardHandler)})
	changes, err := s.Set(context.Background(), Table{})
	return changes.Removed, err
}
