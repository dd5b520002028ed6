package deliver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// layoutPrefix starts the names of the folders with pinned maps.
const layoutPrefix = "maps-"

// layoutTag is the same for specs whose maps hold the same bytes. Maps of
// another layout are never opened: theirs is another folder.
func layoutTag(spec *ebpf.CollectionSpec) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		fmt.Fprintf(h, "%s %s %d %d %d %s %s\n", name, m.Type, m.KeySize, m.ValueSize, m.Flags, describe(m.Key), describe(m.Value))
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}

// describe spells a type out: sizes, offsets and names.
func describe(t btf.Type) string {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	case *btf.Array:
		return fmt.Sprintf("[%d]%s", t.Nelems, describe(t.Type))
	case nil:
		return ""
	default:
		size, _ := btf.Sizeof(t)
		return fmt.Sprint(size)
	}
	var s strings.Builder
	for _, m := range members {
		fmt.Fprintf(&s, "%s@%d:%s;", m.Name, m.Offset, describe(m.Type))
	}
	return "{" + s.String() + "}"
}

func (d *Deliverer) load() error {
	spec, err := bpf.LoadDeliver()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	for name, size := range map[string]uint32{bpf.DeliverMapFlows: d.options.Flows, bpf.DeliverMapTargets: d.options.Targets} {
		if size > 0 {
			spec.Maps[name].MaxEntries = size
		}
	}
	d.dir = filepath.Join(d.options.PinDir, layoutPrefix+layoutTag(spec))
	if err := d.openMaps(spec); err != nil {
		return err
	}
	d.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: d.maps})
	if err != nil {
		return fmt.Errorf("load the eBPF programs: %w", err)
	}
	return nil
}

// openMaps opens what is pinned and makes what is not.
func (d *Deliverer) openMaps(spec *ebpf.CollectionSpec) error {
	d.maps = map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(d.dir, name), nil)
		switch {
		case err == nil && m.Type() == s.Type && m.KeySize() == s.KeySize && m.ValueSize() == s.ValueSize && m.Flags() == s.Flags:
			s.MaxEntries = m.MaxEntries()
		case err == nil:
			// Somebody else's: pinMaps will put ours there.
			m.Close()
			d.log.Warn("pinned map is not ours", "map", name, "dir", d.dir)
			m, err = ebpf.NewMap(s)
		case errors.Is(err, fs.ErrNotExist):
			m, err = ebpf.NewMap(s)
		}
		if err != nil {
			return fmt.Errorf("open map %s: %w", name, err)
		}
		d.maps[name] = m
	}
	return nil
}

// pinMaps pins every map that is not pinned where it belongs.
func (d *Deliverer) pinMaps(c *dataplane.Changes) error {
	if err := mountBPF(d.options.PinDir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.maps)) {
		m, path := d.maps[name], filepath.Join(d.dir, name)
		if isPinned(m, path) {
			continue
		}
		// The library believes in the pin it made, also when the file is gone.
		if err := errors.Join(m.Unpin(), removeFile(path)); err != nil {
			return fmt.Errorf("unpin map %s: %w", name, err)
		}
		if err := m.Pin(path); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
		d.count(c, d.pinned, "pin", name)
	}
	d.pinned = true
	return nil
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

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeOldLayouts removes the maps of other versions of us. Their programs
// have been replaced by now.
func (d *Deliverer) removeOldLayouts() error {
	dirs, err := filepath.Glob(filepath.Join(d.options.PinDir, layoutPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir == d.dir {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove maps of another layout: %w", err)
		}
		d.log.Info("maps of another layout removed", "dir", dir)
	}
	return nil
}

// bpffs is where bpffs belongs on every distribution.
const bpffs = "/sys/fs/bpf"

// mountBPF makes sure that dir is, or will be, in a bpffs. It mounts one at its
// usual place when that is bare, as in minimal systems.
func mountBPF(dir string) error {
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
