package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
)

// OpenMaps opens the maps of spec that are pinned in dir and makes those that
// are not. A pinned map keeps its size, which goes into the spec. adopted tells
// whether any was pinned.
func OpenMaps(spec *ebpf.CollectionSpec, dir string, log *slog.Logger) (all map[string]*ebpf.Map, adopted bool, err error) {
	all = map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		switch {
		case err == nil && m.Type() == s.Type && m.KeySize() == s.KeySize && m.ValueSize() == s.ValueSize && m.Flags() == s.Flags:
			s.MaxEntries = m.MaxEntries()
			adopted = true
		case err == nil:
			// Somebody else's: Maps will put ours there.
			m.Close()
			log.Warn("pinned map is not ours", "map", name, "dir", dir)
			m, err = ebpf.NewMap(s)
		case errors.Is(err, fs.ErrNotExist):
			m, err = ebpf.NewMap(s)
		}
		if err != nil {
			for _, m := range all {
				m.Close()
			}
			return nil, false, fmt.Errorf("open map %s: %w", name, err)
		}
		all[name] = m
	}
	return all, adopted, nil
}

// Maps pins every map that is not pinned at its name in dir, which it makes,
// with a bpffs around it where there is none. It tells which it pinned, also
// when it fails.
func Maps(all map[string]*ebpf.Map, dir string) (pinned []string, err error) {
	if err := Mount(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make pin folder: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		wrote, err := Map(all[name], filepath.Join(dir, name))
		if err != nil {
			return pinned, fmt.Errorf("map %s: %w", name, err)
		}
		if wrote {
			pinned = append(pinned, name)
		}
	}
	return pinned, nil
}

// Map pins the map at path, over whatever is there, at once: a process killed in
// between leaves the one before. It tells whether there was anything to do.
func Map(m *ebpf.Map, path string) (bool, error) {
	temporary := path + "-new"
	if err := remove(temporary); err != nil { // left by a process that was killed
		return false, fmt.Errorf("unpin map: %w", err)
	}
	if isPinned(m, path) {
		return false, nil
	}
	// The library believes in the pin that it made, also when the file is gone.
	if err := m.Unpin(); err != nil {
		return false, fmt.Errorf("unpin map: %w", err)
	}
	if err := m.Pin(temporary); err != nil {
		return false, fmt.Errorf("pin map: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return false, fmt.Errorf("pin map: %w", err)
	}
	return true, nil
}

func isPinned(m *ebpf.Map, path string) bool {
	at, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return false
	}
	defer at.Close()
	a, err1 := at.Info()
	o, err2 := m.Info()
	if err1 != nil || err2 != nil {
		return false
	}
	x, _ := a.ID()
	y, _ := o.ID()
	return x == y
}
