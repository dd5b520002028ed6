package bench

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// kernelMemory sums what the kernel accounts to the cgroup's programs and their
// maps.
func kernelMemory(cgroup string) (uint64, error) {
	programs, err := attached(cgroup)
	if err != nil {
		return 0, err
	}
	defer closeAll(programs)
	total, seen := uint64(0), map[ebpf.MapID]bool{}
	for _, list := range programs {
		for _, p := range list {
			info, err := p.Info()
			if err != nil {
				return 0, err
			}
			bytes, _ := info.Memlock()
			total += bytes
			ids, _ := info.MapIDs()
			for _, id := range ids {
				if seen[id] {
					continue
				}
				seen[id] = true
				bytes, err := mapMemory(id)
				if err != nil {
					return 0, err
				}
				total += bytes
			}
		}
	}
	return total, nil
}

func mapMemory(id ebpf.MapID) (uint64, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return 0, fmt.Errorf("open map %d: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	bytes, ok := info.Memlock()
	if !ok {
		return 0, fmt.Errorf("the kernel does not tell the memory of map %d", id)
	}
	return bytes, nil
}
