package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
)

// Cleanup detaches our programs and removes our pins below pinDir, of every
// version of us, and the folder if nothing else is in it. It tells how many
// pins it removed. Without a folder it does nothing.
func Cleanup(pinDir string) (removed int, err error) {
	entries, err := os.ReadDir(pinDir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pin folder: %w", err)
	}
	var faults []error
	// Links first: a program whose maps lose their pins works on, and would
	// balance by a table that nobody can reach any more.
	for _, e := range entries {
		if !e.IsDir() && strings.HasPrefix(e.Name(), linkPrefix) {
			n, err := removeLink(filepath.Join(pinDir, e.Name()))
			removed, faults = removed+n, append(faults, err)
		}
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), layoutPrefix) {
			n, err := removeMaps(filepath.Join(pinDir, e.Name()))
			removed, faults = removed+n, append(faults, err)
		}
	}
	if left, err := os.ReadDir(pinDir); err == nil && len(left) == 0 {
		faults = append(faults, os.Remove(pinDir))
	}
	return removed, errors.Join(faults...)
}

func removeLink(path string) (int, error) {
	// Another process may hold the link, so removing its pin is not enough.
	// The program of a link whose cgroup is gone cannot be detached.
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		_ = l.Detach()
		l.Close()
	}
	if err := os.Remove(path); err != nil {
		return 0, fmt.Errorf("remove pinned link: %w", err)
	}
	return 1, nil
}

func removeMaps(dir string) (removed int, err error) {
	pins, err := os.ReadDir(dir)
	if err != nil {
		return 0, fmt.Errorf("read pinned maps: %w", err)
	}
	for _, p := range pins {
		if err := os.Remove(filepath.Join(dir, p.Name())); err != nil {
			return removed, fmt.Errorf("remove pinned map: %w", err)
		}
		removed++
	}
	return removed, os.Remove(dir)
}
