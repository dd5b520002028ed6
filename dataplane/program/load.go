package program

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
const layoutPrefix = "vip-"

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
		return fmt.Sprintf("%d", size)
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

func (b *Balancer) load() error {
	spec, err := bpf.LoadBalance()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	b.options.Sizes.apply(spec)
	b.dir = filepath.Join(b.options.PinDir, layoutPrefix+layoutTag(spec))
	if err := b.openMaps(spec); err != nil {
		return err
	}
	b.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: b.maps})
	if err != nil {
		return fmt.Errorf("load the eBPF programs: %w", err)
	}
	return b.cells.openAll(b.maps)
}

// openMaps opens what is pinned and makes what is not.
func (b *Balancer) openMaps(spec *ebpf.CollectionSpec) error {
	b.maps = map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(b.dir, name), nil)
		switch {
		case err == nil && m.Type() == s.Type && m.KeySize() == s.KeySize && m.ValueSize() == s.ValueSize && m.Flags() == s.Flags:
			s.MaxEntries = m.MaxEntries()
			b.adopted = true
		case err == nil:
			// Somebody else's: pinMaps will put ours there.
			m.Close()
			b.log.Warn("pinned map is not ours", "map", name, "dir", b.dir)
			m, err = ebpf.NewMap(s)
		case errors.Is(err, fs.ErrNotExist):
			m, err = ebpf.NewMap(s)
		}
		if err != nil {
			return fmt.Errorf("open map %s: %w", name, err)
		}
		b.maps[name] = m
	}
	return nil
}

// pinMaps pins every map that is not pinned where it belongs.
func (b *Balancer) pinMaps(c *dataplane.Changes) error {
	if err := mountBPF(b.options.PinDir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(b.maps)) {
		m, path := b.maps[name], filepath.Join(b.dir, name)
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
		b.count(c, b.pinned, "pin", name)
	}
	b.pinned = true
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
func (b *Balancer) removeOldLayouts() error {
	dirs, err := filepath.Glob(filepath.Join(b.options.PinDir, layoutPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir == b.dir {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove maps of another layout: %w", err)
		}
		b.log.Info("maps of another layout removed", "dir", dir)
	}
	return nil
}

// count books one change: a repair when the object was ours and unchanged by us.
func (b *Balancer) count(c *dataplane.Changes, repair bool, kind, name string) {
	if !repair {
		c.Written++
		return
	}
	c.Repaired++
	b.log.Warn("kernel object repaired", "kind", kind, "name", name)
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
