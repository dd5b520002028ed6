package pin

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCleanupRemovesOursAndNothingElse(t *testing.T) {
	r := newRig(t)
	all, _, _ := openMaps(t, filepath.Join(r.dir, "maps-1"), 5)
	pinMaps(t, all, filepath.Join(r.dir, "maps-1"), "plain", "values")
	r.set(&r.links, "link hook false") // and r.links holds it on
	for _, dir := range []string{"maps-0", "link-folder", "others"} {
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	somebody := filepath.Join(r.dir, "somebody")
	if err := newProgram(t, 0).Pin(somebody); err != nil {
		t.Fatal(err)
	}
	if n, err := Cleanup(r.dir, "maps-"); n != 3 || err != nil {
		t.Errorf("got %d pins removed and %v, want 3", n, err)
	}
	if ids := r.attached(); len(ids) != 0 {
		t.Errorf("the programs %v are attached still", ids)
	}
	if got := names(t, r.dir); !slices.Equal(got, []string{"link-folder", "others", "somebody"}) {
		t.Errorf("%v is left, want what is not ours", got)
	}
	for _, path := range []string{somebody, filepath.Join(r.dir, "link-folder"), filepath.Join(r.dir, "others")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if n, err := Cleanup(r.dir, "maps-"); n != 0 || err != nil {
			t.Errorf("the next Cleanup: got %d and %v", n, err)
		}
		if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
			t.Errorf("the empty folder is left: %v", err)
		}
	}
}

func TestCleanupGoesOnAfterAFailure(t *testing.T) {
	r := newRig(t)
	maps1 := filepath.Join(r.dir, "maps-1")
	all, _, _ := openMaps(t, maps1, 5)
	pinMaps(t, all, maps1, "plain", "values")
	if err := os.MkdirAll(filepath.Join(r.dir, "maps-0", "full", "of"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := Cleanup(r.dir, "maps-"); n != 2 || err == nil {
		t.Errorf("got %d pins removed and %v, want 2 and an error", n, err)
	}
	if _, err := os.Stat(maps1); !os.IsNotExist(err) {
		t.Errorf("the maps are left: %v", err)
	}
}
