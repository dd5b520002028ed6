package edge

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

// Sizes of the maps, in elements; zero takes what bpf/edge_maps.h and, of NAT,
// bpf/nat_layout.h say. Services,
// Backends and Hops count one more than fit: the id 0 is nobody's.
type Sizes struct {
	Services  uint32
	Frontends uint32 // and their addresses
	Backends  uint32
	Slots     uint32 // a change needs room beside what is there
	Hops      uint32 // next machines
	Flows     uint32 // in the connection cache
	Fragments uint32 // fragmented packets under way
	QUIC      uint32 // connection ids
	Allowed   uint32 // prefixes in all allow lists
	NATFlows  uint32 // flows to backends behind NAT
}

func (s Sizes) apply(spec *ebpf.CollectionSpec) {
	for name, size := range map[string]uint32{
		bpf.EdgeMapEdgeServices: s.Services, bpf.EdgeMapEdgeNames: s.Services,
		bpf.EdgeMapEdgeServiceCounts: s.Services, bpf.EdgeMapEdgeSyns: s.Services,
		bpf.EdgeMapEdgeFrontends: s.Frontends, bpf.EdgeMapEdgeAddresses: s.Frontends,
		bpf.EdgeMapEdgeBackends: s.Backends, bpf.EdgeMapEdgeSlots: s.Slots, bpf.EdgeMapEdgeHops: s.Hops,
		bpf.EdgeMapEdgeFlows: s.Flows, bpf.EdgeMapEdgeFragments: s.Fragments,
		bpf.EdgeMapEdgeQuicIds: s.QUIC, bpf.EdgeMapEdgeAllowed: s.Allowed,
		bpf.EdgeNatMapNatFlows: s.NATFlows,
	} {
		if size > 0 {
			spec.Maps[name].MaxEntries = size
		}
	}
}

// layoutPrefix starts the names of the folders with pinned maps.
const layoutPrefix = "maps-"

func (e *Edge) load() error {
	spec, err := bpf.LoadEdge()
	if err != nil {
		return fmt.Errorf("read the edge's eBPF object: %w", err)
	}
	nat, err := bpf.LoadEdgeNat()
	if err != nil {
		return fmt.Errorf("read the edge's eBPF object for NAT: %w", err)
	}
	for name, m := range nat.Maps {
		if spec.Maps[name] == nil {
			spec.Maps[name] = m
		}
	}
	e.options.Sizes.apply(spec)
	if e.reasons, err = enumNames(spec, "edge_reason", "EDGE_"); err != nil {
		return err
	}
	if e.faults, err = enumNames(spec, "packet_fault", "FAULT_"); err != nil {
		return err
	}
	if e.natResults, err = enumNames(nat, "nat_result", "NAT_"); err != nil {
		return err
	}
	e.dir = filepath.Join(e.options.PinDir, layoutPrefix+pin.LayoutTag(spec))
	if e.maps, e.adopted, err = pin.OpenMaps(spec, e.dir, e.log); err != nil {
		return err
	}
	e.programs, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: e.maps})
	if err != nil {
		return fmt.Errorf("load the edge's eBPF programs: %w", err)
	}
	return e.cells.open(e.maps)
}

// enumNames lists the words of a C enum by value, in lower case, without the
// prefix and without the last, which counts them.
func enumNames(spec *ebpf.CollectionSpec, name, prefix string) ([]string, error) {
	var t *btf.Enum
	if err := spec.Types.TypeByName(name, &t); err != nil {
		return nil, fmt.Errorf("read enum %s of the edge's eBPF object: %w", name, err)
	}
	names := make([]string, len(t.Values)-1)
	for _, v := range t.Values {
		if int(v.Value) < len(names) {
			names[v.Value] = strings.ToLower(strings.TrimPrefix(v.Name, prefix))
		}
	}
	return names, nil
}

// pinMaps pins every map that is not pinned where it belongs.
func (e *Edge) pinMaps(c *dataplane.Changes) error {
	if err := pin.Mount(e.options.PinDir); err != nil {
		return err
	}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return fmt.Errorf("make pin folder: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(e.maps)) {
		wrote, err := pin.Map(e.maps[name], filepath.Join(e.dir, name))
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		if wrote {
			e.count(c, e.pinned, "pin", name)
		}
	}
	e.pinned = true
	return nil
}

// removeOldLayouts removes the maps of other versions of us. Their programs have
// been replaced by now.
func (e *Edge) removeOldLayouts() error {
	dirs, err := filepath.Glob(filepath.Join(e.options.PinDir, layoutPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir == e.dir {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove maps of another layout: %w", err)
		}
		e.log.Info("maps of another layout removed", "dir", dir)
	}
	return nil
}
