package edge

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
// version of us, and the folder if nothing else is in it. It tells how many pins
// it removed. Without a folder it does nothing.
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
		if e.IsDir() || !strings.HasPrefix(e.Name(), linkPrefix) {
			continue
		}
		path := filepath.Join(pinDir, e.Name())
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			// Another process may hold it, so removing the pin is not enough.
			_ = l.Detach()
			l.Close()
		}
		faults = append(faults, os.Remove(path))
		removed++
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), layoutPrefix) {
			continue
		}
		dir := filepath.Join(pinDir, e.Name())
		pins, err := os.ReadDir(dir)
		faults = append(faults, err)
		for _, p := range pins {
			faults = append(faults, os.Remove(filepath.Join(dir, p.Name())))
			removed++
		}
		faults = append(faults, os.Remove(dir))
	}
	if left, err := os.ReadDir(pinDir); err == nil && len(left) == 0 {
		faults = append(faults, os.Remove(pinDir))
	}
	return removed, errors.Join(faults...)
}
