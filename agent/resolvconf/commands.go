package resolvconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// record is the name of our entry with resolvconf. By Debian's interface-order
// entries of lo come first.
const record = "lo.weir"

// dropIn is our file among systemd-resolved's.
const dropIn = "weir.conf"

// setResolvconf enters the proxy's address with the resolvconf command, which
// writes resolv.conf with the others' behind.
func (h *Host) setResolvconf(ctx context.Context, w Want) (Outcome, error) {
	if h.isFirst(w) {
		return Same, nil
	}
	outcome := Written
	if h.told != nil && slices.Equal(h.told.Servers, w.Servers) {
		outcome = Repaired
		if err := h.rewritten(); err != nil {
			return Same, err
		}
	}
	if err := h.o.Run(ctx, fmt.Sprintf("nameserver %s\n", w.Servers[0]), "resolvconf", "-a", record); err != nil {
		return Same, fmt.Errorf("tell resolvconf: %w", err)
	}
	if !h.isFirst(w) {
		return outcome, fmt.Errorf("tell resolvconf: it took %s, but %s does not list it first: put lo.weir first in resolvconf's interface order", w.Servers[0], h.o.File)
	}
	return outcome, nil
}

// isFirst tells whether resolv.conf has the proxy before all others.
func (h *Host) isFirst(w Want) bool {
	text, err := os.ReadFile(h.o.File)
	if err != nil {
		return false
	}
	servers := parse(text).servers
	return len(servers) > 0 && servers[0] == w.Servers[0]
}

// setResolved writes a drop-in of systemd-resolved. The zones go to the proxy
// alone. All other names are asked of it and of the links' servers, and the
// first good answer counts: so they go on while the proxy is down, without a
// server that resolved sticks to once the first was lost.
func (h *Host) setResolved(ctx context.Context, w Want) (Outcome, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n[Resolve]\nDNS=%s\n", mark, w.Servers[0])
	if len(w.Zones) > 0 {
		fmt.Fprintf(&b, "Domains=~%s\n", strings.Join(w.Zones, " ~"))
	}
	path := filepath.Join(h.o.DropIns, dropIn)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Same, fmt.Errorf("read systemd-resolved's drop-in: %w", err)
	}
	if bytes.Equal(text, []byte(b.String())) {
		return Same, nil
	}
	if err == nil && !isOurs(text) {
		return Same, fmt.Errorf("tell systemd-resolved: %s is there, and weir-agent did not write it", path)
	}
	outcome := Written
	if h.told != nil && slices.Equal(h.told.Servers, w.Servers) && slices.Equal(h.told.Zones, w.Zones) {
		outcome = Repaired
		if err := h.rewritten(); err != nil {
			return Same, err
		}
	}
	if err := os.MkdirAll(h.o.DropIns, 0o755); err != nil {
		return Same, fmt.Errorf("tell systemd-resolved: %w", err)
	}
	if err := replace(path, []byte(b.String()), 0o644, nil); err != nil {
		return Same, fmt.Errorf("tell systemd-resolved: %w", err)
	}
	if err := h.reloadResolved(ctx); err != nil {
		os.Remove(path) // so that the next pass tries again
		return Same, err
	}
	return outcome, nil
}

// dropResolved takes the drop-in away, if it is ours.
func (h *Host) dropResolved(ctx context.Context) (bool, error) {
	path := filepath.Join(h.o.DropIns, dropIn)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isOurs(text) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := os.Remove(path); err != nil {
		return false, err
	}
	return true, h.reloadResolved(ctx)
}

// reloadResolved: versions before 253 cannot reload, and restart instead.
func (h *Host) reloadResolved(ctx context.Context) error {
	if err := h.o.Run(ctx, "", "systemctl", "reload-or-restart", "systemd-resolved.service"); err != nil {
		return fmt.Errorf("reload systemd-resolved: %w", err)
	}
	return nil
}
