package deliver

import (
	"errors"
	"fmt"
	"net"
)

// netInterface is one that the programs run on.
type netInterface struct {
	name  string
	index int
	mtu   int
}

// findInterfaces looks the interfaces up in the network namespace of the calling
// thread. The error tells which are not there, or not of use; the others are
// given all the same.
func findInterfaces(names []string) (all []netInterface, err error) {
	var faults []error
	seen := map[int]bool{}
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("find interface %s: %w", name, err))
		case len(i.HardwareAddr) != 6:
			// The programs count on Ethernet headers.
			faults = append(faults, fmt.Errorf("interface %s is no Ethernet interface: it has no hardware address of 6 bytes", name))
		case !seen[i.Index]:
			seen[i.Index] = true
			all = append(all, netInterface{name: name, index: i.Index, mtu: i.MTU})
		}
	}
	return all, errors.Join(faults...)
}

// smallestMTU in bytes, or 0 without interfaces.
func smallestMTU(interfaces []netInterface) (mtu uint32) {
	for _, i := range interfaces {
		if mtu == 0 || uint32(i.mtu) < mtu {
			mtu = uint32(i.mtu)
		}
	}
	return mtu
}
