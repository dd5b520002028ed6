package pin

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// LayoutTag is the same for specs whose maps hold the same bytes, whatever their
// sizes. Maps of another layout are never opened: theirs is another folder.
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

// RemoveLayouts removes the folders in dir whose names begin with the prefix, but
// for the one at keep: the maps of other versions of us. It is to be called when
// no link runs their programs any more.
func RemoveLayouts(dir, prefix, keep string, log *slog.Logger) error {
	found, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return fmt.Errorf("find maps of other layouts: %w", err)
	}
	for _, old := range found {
		if old == keep {
			continue
		}
		if err := os.RemoveAll(old); err != nil {
			return fmt.Errorf("remove maps of another layout: %w", err)
		}
		log.Info("maps of another layout removed", "dir", old)
	}
	return nil
}
