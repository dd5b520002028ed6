// Package pin keeps maps and links of eBPF in bpffs, so that they outlive the
// process: maps below a folder named after their layout, links at fixed names.
// It attaches nothing and knows no map's meaning; the sinks below dataplane call
// it.
package pin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// LayoutTag is the same for specs whose maps hold the same bytes.
func LayoutTag(spec *ebpf.CollectionSpec) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		fmt.Fprintf(h, "%s %s %d %d %d %s %s\n", name, m.Type, m.KeySize, m.ValueSize, m.Flags, describe(m.Key), describe(m.Value))
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}

// describe spells a type out: sizes, offsets and names.
func describe(t btf.Type) string {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return describeMembers(t.Size, t.Members)
	case *btf.Union:
		return describeMembers(t.Size, t.Members)
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, describe(t.Type))
	case nil:
		return ""
	default:
		size, _ := btf.Sizeof(t)
		return fmt.Sprint(size)
	}
}

func describeMembers(size uint32, members []btf.Member) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d{", size)
	for _, m := range members {
		fmt.Fprintf(&s, "%s@%d:%s;", m.Name, m.Offset, describe(m.Type))
	}
	return s.String() + "}"
}

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
			// Somebody else's: Map will put ours there.
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

// Map pins the map at path, over whatever else is there. It tells whether there
// was anything to do.
func Map(m *ebpf.Map, path string) (bool, error) {
	if isPinned(m, path) {
		return false, nil
	}
	// The library believes in the pin that it made, also when the file is gone.
	if err := errors.Join(m.Unpin(), remove(path)); err != nil {
		return false, fmt.Errorf("unpin map: %w", err)
	}
	if err := m.Pin(path); err != nil {
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

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// bpffs is where bpffs belongs on every distribution.
const bpffs = "/sys/fs/bpf"

// Mount makes sure that dir is, or will be, in a bpffs. It mounts one at its
// usual place when that is bare, as in minimal systems.
func Mount(dir string) error {
	at := dir
	var info unix.Statfs_t
	for {
		err := unix.Statfs(at, &info)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return fmt.Errorf("look for bpffs at %s: %w", dir, err)
		}
		at = filepath.Dir(at)
	}
	if info.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if at != bpffs {
		return fmt.Errorf("%s is not in a bpffs: mount one there (mount -t bpf bpf %s)", dir, bpffs)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffs, err)
	}
	return nil
}
