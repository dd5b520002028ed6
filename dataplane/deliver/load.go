package deliver

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
	d.dir = filepath.Join(d.options.PinDir, layoutPrefix+pin.LayoutTag(spec))
	if d.maps, _, err = pin.OpenMaps(spec, d.dir, d.log); err != nil {
		return err
	}
	d.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: d.maps})
	if err != nil {
		return fmt.Errorf("load the eBPF programs: %w", err)
	}
	return nil
}

// pinMaps pins every map that is not pinned where it belongs.
func (d *Deliverer) pinMaps(c *dataplane.Changes) error {
	pinned, err := pin.Maps(d.maps, d.dir)
	for _, name := range pinned {
		d.count(c, d.pinned, "pin", name)
	}
	d.pinned = d.pinned || err == nil
	return err
}

// Cleanup detaches our programs and removes our pins below pinDir, of every
// version of us, and the folder if nothing else is in it. It tells how many
// pins it removed. Without a folder it does nothing.
func Cleanup(pinDir string) (removed int, err error) { return pin.Cleanup(pinDir, layoutPrefix) }
