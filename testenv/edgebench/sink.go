package edgebench

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// sink drops and counts what arrives at a device, as early as the frames allow:
// at native XDP what came from there, else at TCX, where a frame need not be
// turned into another kind first.
type sink struct {
	counts  *ebpf.Map
	program *ebpf.Program
	link    link.Link
}

// Verdicts of XDP and of TCX.
const (
	xdpDrop = 1
	tcxDrop = 2
)

func newSink(device string, xdp bool) (*sink, error) {
	at, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	s := &sink{}
	if s.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("make the sink's map: %w", err)
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: counting(s.counts, xdpDrop)}
	if !xdp {
		spec.Type, spec.AttachType, spec.Instructions = ebpf.SchedCLS, ebpf.AttachTCXIngress, counting(s.counts, tcxDrop)
	}
	if s.program, err = ebpf.NewProgram(spec); err != nil {
		s.close()
		return nil, fmt.Errorf("load the sink's program: %w", err)
	}
	if xdp {
		s.link, err = link.AttachXDP(link.XDPOptions{Program: s.program, Interface: at.Index, Flags: link.XDPDriverMode})
	} else {
		s.link, err = link.AttachTCX(link.TCXOptions{Program: s.program, Interface: at.Index, Attach: ebpf.AttachTCXIngress})
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("attach the sink to %s: %w", device, err)
	}
	return s, nil
}

// counting adds one to the map's only element and drops.
func counting(counts *ebpf.Map, drop int32) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, drop).WithSymbol("out"),
		asm.Return(),
	}
}

// count is how many frames have come.
func (s *sink) count() (total uint64, err error) {
	var perCPU []uint64
	if err := s.counts.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read the sink's counter: %w", err)
	}
	for _, n := range perCPU {
		total += n
	}
	return total, nil
}

func (s *sink) close() {
	var faults []error
	if s.link != nil {
		faults = append(faults, s.link.Close())
	}
	if s.program != nil {
		faults = append(faults, s.program.Close())
	}
	_ = errors.Join(append(faults, s.counts.Close())...)
}
