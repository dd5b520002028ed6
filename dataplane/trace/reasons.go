package trace

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// everyday are the reasons of healthy traffic, which are neither told nor counted:
// packets for others that a link's tap has seen, what a closed socket still had in
// its queues, data that came twice, a reset that was taken note of.
var everyday = []string{
	"OTHERHOST", "QUEUE_PURGE", "SOCKET_CLOSE", "UNIX_DISCONNECT", "TCP_OLD_DATA", "TCP_OFOMERGE", "TCP_OLD_ACK", "TCP_RESET", "TAP_FILTER", "PACKET_SOCK_ERROR",
}

// dropReasons is DROP_REASONS of bpf/trace_layout.h; a test compares them.
const dropReasons = 256

// reasons are the names of the running kernel's drop reasons, whose numbers differ
// from version to version.
type reasons map[uint32]string

// readReasons reads them from the kernel's own description of its types.
func readReasons() (reasons, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types (it needs CONFIG_DEBUG_INFO_BTF): %w", err)
	}
	var e *btf.Enum
	if err := kernel.TypeByName("skb_drop_reason", &e); err != nil {
		return nil, fmt.Errorf("find the kernel's drop reasons (Linux 5.17): %w", err)
	}
	all := reasons{}
	for _, v := range e.Values {
		if name, is := strings.CutPrefix(v.Name, "SKB_DROP_REASON_"); is {
			all[uint32(v.Value)] = name
		}
	}
	return all, nil
}

// name of a reason; those of subsystems above the core's have numbers alone.
func (r reasons) name(number uint32) string {
	if name, known := r[number]; known {
		return name
	}
	return fmt.Sprintf("REASON_%#x", number)
}

// everyday marks the reasons that are not told.
func (r reasons) everyday() (marks [dropReasons]uint8) {
	for number, name := range r {
		if slices.Contains(everyday, name) && number < dropReasons-1 {
			marks[number] = 1
		}
	}
	return marks
}
