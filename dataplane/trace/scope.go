package trace

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// rootCgroup is the id of the root of all cgroups.
const rootCgroup = 1

// scopeInterval is how often the processes of a cgroup are gone through.
const scopeInterval = time.Second

// scope is what is watched: a cgroup, and the network namespaces of its processes.
type scope struct {
	cgroup     string
	id         uint64 // 0: everything
	namespaces map[uint32]bool
	looked     time.Time
}

func newScope(cgroup string) (scope, error) {
	info, err := os.Stat(cgroup)
	if err != nil {
		return scope{}, fmt.Errorf("find the cgroup to watch: %w", err)
	}
	s := scope{cgroup: cgroup}
	// The number of a cgroup's folder is its id in the kernel.
	if id := inode(info); id != rootCgroup {
		s.id = id
	}
	return s, nil
}

func inode(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// has tells whether a network namespace is watched. One whose number is not known
// is.
func (s *scope) has(netns uint32) bool {
	if s.id == 0 || netns == 0 {
		return true
	}
	if !s.namespaces[netns] && time.Since(s.looked) >= scopeInterval {
		s.look()
	}
	return s.namespaces[netns]
}

func (s *scope) look() {
	s.namespaces, s.looked = map[uint32]bool{}, time.Now()
	add := func(pid string) {
		// A process that has ended has none.
		if info, err := os.Stat(filepath.Join("/proc", pid, "ns/net")); err == nil {
			s.namespaces[uint32(inode(info))] = true
		}
	}
	add("self")
	_ = filepath.WalkDir(s.cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it has been removed meanwhile, or it is a file
		}
		pids, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			add(pid)
		}
		return nil
	})
}
