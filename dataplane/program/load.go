package program

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// layoutPrefix starts the names of the folders with pinned maps.
const layoutPrefix = "vip-"

// objects are the maps and the programs that use them.
type objects struct {
	maps     map[string]*ebpf.Map
	programs *ebpf.Collection
	cells    cells
}

// open opens the maps that are pinned, or makes new ones, and loads the programs.
func (b *Balancer) open() error {
	spec, err := bpf.LoadBalance()
	if err != nil {
		return fmt.Errorf("read the eBPF object: %w", err)
	}
	b.options.Sizes.apply(spec)
	b.dir = filepath.Join(b.options.PinDir, layoutPrefix+pin.LayoutTag(spec))
	if b.maps, b.adopted, err = pin.OpenMaps(spec, b.dir, b.log); err != nil {
		return err
	}
	return b.load(spec)
}

// load loads the programs against the maps.
func (o *objects) load(spec *ebpf.CollectionSpec) (err error) {
	o.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: o.maps})
	if err != nil {
		return fmt.Errorf("load the eBPF programs: %w", err)
	}
	return o.cells.openAll(o.maps)
}

// unload lets go of all but the maps.
func (o *objects) unload() error {
	if o.programs != nil {
		o.programs.Close()
	}
	return o.cells.close()
}

// pinMaps pins every map that is not pinned where it belongs.
func (b *Balancer) pinMaps(c *dataplane.Changes) error {
	pinned, err := pin.Maps(b.maps, b.dir)
	for _, name := range pinned {
		b.count(c, b.pinned, "pin", name)
	}
	b.pinned = b.pinned || err == nil
	return err
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

// Cleanup detaches our programs and removes our pins below pinDir, of every
// version of us, and the folder if nothing else is in it. It tells how many
// pins it removed. Without a folder it does nothing.
func Cleanup(pinDir string) (removed int, err error) { return pin.Cleanup(pinDir, layoutPrefix) }
