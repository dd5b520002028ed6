package answers

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// layoutPrefix starts the names of the folders with pinned maps.
const layoutPrefix = "maps-"

func (a *Answerer) load() error {
	spec, err := bpf.LoadDnsAnswer()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	if a.options.MaxNames > 0 {
		spec.Maps[bpf.DnsAnswerMapDnsNames].MaxEntries = a.options.MaxNames
	}
	a.dir = filepath.Join(a.options.PinDir, layoutPrefix+pin.LayoutTag(spec))
	if a.maps, _, err = pin.OpenMaps(spec, a.dir, a.log); err != nil {
		return err
	}
	a.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: a.maps})
	if err != nil {
		return fmt.Errorf("load the eBPF program: %w", err)
	}
	return nil
}

// pinMaps pins every map that is not pinned where it belongs.
func (a *Answerer) pinMaps(c *dataplane.Changes) error {
	pinned, err := pin.Maps(a.maps, a.dir)
	for _, name := range pinned {
		a.count(c, a.pinned, "pin", name)
	}
	a.pinned = a.pinned || err == nil
	return err
}

// Cleanup detaches our program and removes our pins below pinDir, of every
// version of us, and the folder if nothing else is in it. It tells how many pins
// it removed. Without a folder it does nothing.
func Cleanup(pinDir string) (removed int, err error) { return pin.Cleanup(pinDir, layoutPrefix) }
