package pin

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/testenv"
)

var quiet = slog.New(slog.DiscardHandler)

// openMaps opens those of newSpec, the values with so many elements.
func openMaps(t *testing.T, dir string, size uint32) (map[string]*ebpf.Map, *ebpf.CollectionSpec, bool) {
	t.Helper()
	spec, _ := newSpec()
	spec.Maps["values"].MaxEntries = size
	all, adopted, err := OpenMaps(spec, dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range all {
			m.Close()
		}
	})
	return all, spec, adopted
}

func pinMaps(t *testing.T, all map[string]*ebpf.Map, dir string, want ...string) {
	t.Helper()
	got, err := Maps(all, dir)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Maps: pinned %v and %v, want %v", got, err, want)
	}
}

func TestMapsOutliveTheirOpenerWithTheirSize(t *testing.T) {
	testenv.NeedBPF(t)
	dir := filepath.Join(sinktest.BPFFS(t), "weir", "maps-1")
	all, _, adopted := openMaps(t, dir, 5)
	if adopted {
		t.Error("maps were adopted from a folder that is not there")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("opening has made the folder: %v", err)
	}
	pinMaps(t, all, dir, "plain", "values")
	pinMaps(t, all, dir)
	if err := all["values"].Put(uint32(3), [4]uint32{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.Close()
	}
	all, spec, adopted := openMaps(t, dir, 50)
	var value [4]uint32
	if err := all["values"].Lookup(uint32(3), &value); err != nil || value != [4]uint32{1, 2, 3, 4} || !adopted {
		t.Errorf("the next opener reads %v and %v, adopted: %v", value, err, adopted)
	}
	if got := spec.Maps["values"].MaxEntries; got != 5 || all["values"].MaxEntries() != 5 {
		t.Errorf("the spec has %d elements and the map %d, want 5", got, all["values"].MaxEntries())
	}
	pinMaps(t, all, dir)
}

func TestLostAndForeignPinsAreReplaced(t *testing.T) {
	testenv.NeedBPF(t)
	dir := filepath.Join(sinktest.BPFFS(t), "maps-1")
	all, _, _ := openMaps(t, dir, 5)
	pinMaps(t, all, dir, "plain", "values")
	if err := os.Remove(filepath.Join(dir, "plain")); err != nil {
		t.Fatal(err)
	}
	pinMaps(t, all, dir, "plain")
	// A process was killed while it put a larger map over the one before.
	if err := os.Link(filepath.Join(dir, "plain"), filepath.Join(dir, "plain-new")); err != nil {
		t.Fatal(err)
	}
	pinMaps(t, all, dir)
	if got := names(t, dir); !slices.Equal(got, []string{"plain", "values"}) {
		t.Errorf("the pins %v are left", got)
	}
	larger, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer larger.Close()
	old := all["plain"]
	all["plain"] = larger
	pinMaps(t, all, dir, "plain")
	pinMaps(t, all, dir)
	old.Close()
	// Somebody puts a map of another kind at our place.
	foreign, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	replaceByForeign := func() {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, "values")); err != nil {
			t.Fatal(err)
		}
		if err := foreign.Pin(filepath.Join(dir, "values")); err != nil {
			t.Fatal(err)
		}
	}
	replaceByForeign()
	pinMaps(t, all, dir, "values")
	if err := foreign.Unpin(); err != nil { // the library believes that it is pinned
		t.Fatal(err)
	}
	pinMaps(t, all, dir, "values")
	replaceByForeign()
	next, _, adopted := openMaps(t, dir, 5)
	if next["values"].ValueSize() != 16 || !adopted {
		t.Errorf("opened a map with values of %d bytes, adopted: %v", next["values"].ValueSize(), adopted)
	}
	pinMaps(t, next, dir, "values")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	pinMaps(t, next, dir, "plain", "values")
}

func TestWhatIsNotInABPFFSIsRefused(t *testing.T) {
	testenv.NeedBPF(t)
	dir := filepath.Join(t.TempDir(), "weir", "maps-1")
	all, _, _ := openMaps(t, dir, 5)
	if got, err := Maps(all, dir); err == nil || !strings.Contains(err.Error(), "bpffs") || len(got) != 0 {
		t.Errorf("got %v and %v, want an error that speaks of a bpffs", got, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder was made: %v", err)
	}
	if err := Mount(filepath.Join(sinktest.BPFFS(t), "not", "yet")); err != nil {
		t.Errorf("a folder to be in a bpffs: %v", err)
	}
	if err := Available(); err != nil {
		t.Errorf("here: %v", err)
	}
}

func TestAMapThatTheKernelRefusesIsNamed(t *testing.T) {
	testenv.NeedBPF(t)
	spec, _ := newSpec()
	spec.Maps["values"].ValueSize = 0
	all, _, err := OpenMaps(spec, filepath.Join(sinktest.BPFFS(t), "maps-1"), quiet)
	if err == nil || !strings.Contains(err.Error(), "values") || all != nil {
		t.Errorf("got %v and %v, want an error that names the map", all, err)
	}
}
