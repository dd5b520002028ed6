package cgroup

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// Usage of a group.
type Usage struct {
	CPUSeconds float64 // since it was made; 0 where the node does not count
	Memory     uint64  // bytes, now
	OOMKills   uint64  // processes that the kernel killed for want of memory
}

// Usage reads what the group uses; what cannot be read is 0.
func (g Group) Usage() Usage {
	var u Usage
	if g.V2 != "" {
		u.CPUSeconds = float64(field(filepath.Join(g.V2, "cpu.stat"), "usage_usec")) / 1e6
	}
	if g.Limited {
		u.Memory = number(filepath.Join(g.V2, "memory.current"))
		u.OOMKills = field(filepath.Join(g.V2, "memory.events"), "oom_kill")
		return u
	}
	if d := g.V1["memory"]; d != "" {
		u.Memory = number(filepath.Join(d, "memory.usage_in_bytes"))
		u.OOMKills = field(filepath.Join(d, "memory.oom_control"), "oom_kill") // Linux 4.13
	}
	return u
}

func number(path string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64)
	return n
}

// field is a number in a file of lines "name number".
func field(path, name string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if string(key) == name {
			n, _ := strconv.ParseUint(string(value), 10, 64)
			return n
		}
	}
	return 0
}
