package agent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// Enforce makes the packet filter hold the zones of the snapshot that is kept on
// disk, and returns: what a boot does before the network is up. It says in words
// what is in force. Without a snapshot it changes nothing. It refuses while an
// agent runs.
func Enforce(ctx context.Context, c Config, log *slog.Logger) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	unlock, err := lock(c.RunDir)
	if err != nil {
		return "", err
	}
	defer unlock()
	a := &Agent{config: c, log: log, registry: prometheus.NewRegistry()}
	if a.joined, err = a.newJoined(); err != nil {
		return "", err
	}
	zones, err := a.newZones()
	if err != nil {
		return "", err
	}
	if err := a.loadSnapshot(); err != nil {
		return "", fmt.Errorf("read the kept snapshot: %w", err)
	}
	s := a.snapshot.Load()
	if s == nil {
		return "no snapshot is kept on disk: nothing is enforced", nil
	}
	if _, err := zones.apply(ctx, s); err != nil {
		return "", fmt.Errorf("enforce the zones of snapshot %d: %w", s.Revision, err)
	}
	return fmt.Sprintf("snapshot %d, %s: %s", s.Revision, zones.backend(), zones.detail()), nil
}
