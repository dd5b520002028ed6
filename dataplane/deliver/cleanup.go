package deliver

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
	// Links first: programs whose maps lose their pins work on, and would
	// deliver by a table that nobody can reach any more.
	for _, e := range entries {
		if e.IsDir() || !strings.HasPrefix(e.Name(), linkPrefix) {
			continue
		}
		if err := removeLink(filepath.Join(pinDir, e.Name())); err != nil {
			faults = append(faults, err)
			continue
		}
		removed++
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), layoutPrefix) {
			dir := filepath.Join(pinDir, e.Name())
			pins, _ := os.ReadDir(dir)
			if err := os.RemoveAll(dir); err != nil {
				faults = append(faults, fmt.Errorf("remove pinned maps: %w", err))
				continue
			}
			removed += len(pins)
		}
	}
	if left, err := os.ReadDir(pinDir); err == nil && len(left) == 0 {
		faults = append(faults, os.Remove(pinDir))
	}
	return removed, errors.Join(faults...)
}

func removeLink(path string) error {
	// Another process may hold the link, so removing its pin is not enough. A
	// link whose interface is gone cannot be detached.
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		_ = l.Detach()
		l.Close()
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove pinned link: %w", err)
	}
	return nil
}
