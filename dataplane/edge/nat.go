package edge

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// Elements of the maps edge_nat_xdp and edge_nat_tcx.
const (
	natOut = 0
	natIn  = 1
)

// loadNAT loads, once, the programs to which the core's jump, on the same maps.
// Where the kernel cannot run them, the rest works without.
func (e *Edge) loadNAT() error {
	if e.nat != nil || e.natFault != nil {
		return e.natFault
	}
	spec, err := bpf.LoadEdgeNat()
	if err != nil {
		return fmt.Errorf("read the edge's eBPF object for nat: %w", err)
	}
	shared := map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		shared[name] = e.maps[name]
		s.MaxEntries = e.maps[name].MaxEntries()
	}
	if e.nat, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		e.nat, e.natFault = nil, fmt.Errorf("load the edge's eBPF programs for nat: %w", err)
	}
	return e.natFault
}

// setNAT gives the programs for NAT their address and ports and the core's
// programs the way to them. Where nothing is delivered that way it leaves things
// as they are: nobody looks at them.
func (e *Edge) setNAT(w *wanted, c *dataplane.Changes) error {
	if !w.nat {
		return nil
	}
	ports := e.options.NATPorts
	next := bpf.EdgeNatNatConfig{FirstPort: ports.First, Ports: ports.Last - ports.First + 1}
	if w.source4.IsValid() {
		next.Own4 = bpf.EdgeNatAddress(encodeAddress(w.source4))
	}
	if w.source6.IsValid() {
		next.Own6 = bpf.EdgeNatAddress(encodeAddress(w.source6))
	}
	var held bpf.EdgeNatNatConfig
	m := e.maps[bpf.EdgeNatMapNatConfig]
	if err := m.Lookup(uint32(0), &held); err != nil {
		return fmt.Errorf("read nat's addresses: %w", err)
	}
	if held != next {
		if err := m.Put(uint32(0), &next); err != nil {
			return fmt.Errorf("write nat's addresses: %w", err)
		}
		e.count(c, e.made.natConfig == next, "nat addresses", "")
	}
	if e.made.natConfig != next {
		e.made.natConfig = next
		if why := portsClash(ports); why != "" {
			e.log.Warn("the node's own connections may take nat's ports", "ports", fmt.Sprintf("%d-%d", ports.First, ports.Last), "why", why)
		}
	}
	for _, jump := range []struct {
		table string
		at    uint32
		to    string
	}{
		{bpf.EdgeMapEdgeNatXdp, natOut, bpf.EdgeNatProgWeirEdgeNatOutXdp}, {bpf.EdgeMapEdgeNatXdp, natIn, bpf.EdgeNatProgWeirEdgeNatInXdp},
		{bpf.EdgeMapEdgeNatTcx, natOut, bpf.EdgeNatProgWeirEdgeNatOutTcx}, {bpf.EdgeMapEdgeNatTcx, natIn, bpf.EdgeNatProgWeirEdgeNatInTcx},
	} {
		if err := e.setJump(jump.table, jump.at, jump.to, c); err != nil {
			return fmt.Errorf("set way to program %s: %w", jump.to, err)
		}
	}
	return nil
}

// setJump puts the program there, unless one of the same code on the same maps is.
func (e *Edge) setJump(table string, at uint32, to string, c *dataplane.Changes) error {
	m, program := e.maps[table], e.nat.Programs[to]
	var id ebpf.ProgramID
	if err := m.Lookup(at, &id); err == nil && runs(id, program) {
		e.made.jumps[to] = true
		return nil
	} else if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	if err := m.Put(at, program); err != nil {
		return err
	}
	e.count(c, e.made.jumps[to], "jump", to)
	e.made.jumps[to] = true
	return nil
}

// runs tells whether the kernel's program is the same code on the same maps.
func runs(id ebpf.ProgramID, program *ebpf.Program) bool {
	there, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer there.Close()
	x, err1 := there.Info()
	y, err2 := program.Info()
	if err1 != nil || err2 != nil {
		return false
	}
	a, _ := x.MapIDs()
	b, _ := y.MapIDs()
	slices.Sort(a)
	slices.Sort(b)
	return x.Tag == y.Tag && slices.Equal(a, b)
}

func natWord(nat bool) uint32 {
	if nat {
		return 1
	}
	return 0
}

// portsClash tells in words why connections of the node itself may take some of
// the ports; empty when they may not.
func portsClash(p Ports) string {
	local, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return err.Error()
	}
	var first, last uint16
	if _, err := fmt.Sscan(string(local), &first, &last); err != nil {
		return fmt.Sprintf("read ip_local_port_range: %v", err)
	}
	if last < p.First || first > p.Last {
		return ""
	}
	reserved, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return err.Error()
	}
	if covered(string(reserved), max(first, p.First), min(last, p.Last)) {
		return ""
	}
	return fmt.Sprintf("net.ipv4.ip_local_port_range is %d to %d: set net.ipv4.ip_local_reserved_ports to %d-%d", first, last, p.First, p.Last)
}

// covered tells whether a list as the kernel writes it, such as "80,50000-65535",
// has every port. The kernel joins ranges and sorts them.
func covered(list string, first, last uint16) bool {
	for _, span := range strings.Split(strings.TrimSpace(list), ",") {
		from, to, ok := strings.Cut(span, "-")
		if !ok {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil && uint16(a) <= first && uint16(b) >= last {
			return true
		}
	}
	return false
}
