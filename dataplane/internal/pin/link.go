package pin

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Link puts the link's pin at path, over whatever is there, at once. It returns
// the link anew, to be used instead of l, which it closes.
func Link(l link.Link, path string) (link.Link, error) {
	temporary := path + "-new"
	// The library believes in a pin that it made, also when the file is gone.
	if err := errors.Join(l.Unpin(), remove(temporary)); err != nil {
		return nil, fmt.Errorf("unpin link: %w", err)
	}
	if err := l.Pin(temporary); err != nil {
		return nil, fmt.Errorf("pin link: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, fmt.Errorf("pin link: %w", err)
	}
	renamed, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned link: %w", err)
	}
	l.Close()
	return renamed, nil
}

// SameLink tells whether both are one link of the kernel.
func SameLink(a, b link.Link) bool {
	x, err1 := a.Info()
	y, err2 := b.Info()
	return err1 == nil && err2 == nil && x.ID == y.ID
}

// Runs tells whether the link runs the program, or one of the same code on the
// same maps.
func Runs(l link.Link, program *ebpf.Program) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	running, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return false
	}
	defer running.Close()
	x, err1 := running.Info()
	y, err2 := program.Info()
	if err1 != nil || err2 != nil {
		return false
	}
	mapsX, _ := x.MapIDs()
	mapsY, _ := y.MapIDs()
	slices.Sort(mapsX)
	slices.Sort(mapsY)
	return x.Tag == y.Tag && slices.Equal(mapsX, mapsY)
}
