package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
)

// Cleanup detaches the programs of the links that are pinned in dir, and removes
// their pins, the folders of maps whose names begin with the prefix, and dir if
// nothing else is in it. It tells how many pins it removed, also when it fails.
// Without dir it does nothing.
func Cleanup(dir, layoutPrefix string) (removed int, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read pin folder: %w", err)
	}
	var faults []error
	// Links first: a program whose maps lose their pins works on, by a table
	// that nobody can reach any more.
	for _, f := range files {
		if f.IsDir() || !strings.HasPrefix(f.Name(), LinkPrefix) {
			continue
		}
		if err := removeLink(filepath.Join(dir, f.Name())); err != nil {
			faults = append(faults, err)
			continue
		}
		removed++
	}
	for _, f := range files {
		if f.IsDir() && strings.HasPrefix(f.Name(), layoutPrefix) {
			n, err := removeMaps(filepath.Join(dir, f.Name()))
			removed, faults = removed+n, append(faults, err)
		}
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) == 0 {
		faults = append(faults, os.Remove(dir))
	}
	return removed, errors.Join(faults...)
}

func removeLink(path string) error {
	// Another process may hold the link, so removing its pin is not enough. One
	// whose target is gone cannot be detached.
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		_ = l.Detach()
		l.Close()
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove pinned link: %w", err)
	}
	return nil
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
	if err := os.Remove(dir); err != nil {
		return removed, fmt.Errorf("remove folder of maps: %w", err)
	}
	return removed, nil
}
