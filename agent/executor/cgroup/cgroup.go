// Package cgroup keeps every process of a task in a cgroup of its own, with
// limits, whatever the node has: version 2 alone, version 1 alone, or both side
// by side (hybrid: the limits are version 1's, and version 2 has membership
// only, by which the load balancer finds the task's sockets).
//
// It changes nothing outside the group that it is given, but for the group's
// parents, which it makes and gives controllers to.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// controllers that limits need, by their names in version 1.
var controllers = []string{"cpu", "memory", "pids", "freezer"}

// Group is the cgroup of one task: a path in every hierarchy that the node has.
// It is plain data, so that it can be kept on disk.
type Group struct {
	// V2 is the folder in the version 2 hierarchy; empty where there is none.
	V2 string `json:"v2,omitempty"`
	// Limited tells that version 2 has the controllers, so that limits are its.
	Limited bool `json:"limited,omitempty"`
	// V1 are the folders in the version 1 hierarchies, by controller.
	V1 map[string]string `json:"v1,omitempty"`
	// Path below the root of the hierarchies that limit, such as
	// /weir-tasks/web.1: what an OCI runtime calls cgroupsPath.
	Path string `json:"path"`
}

// Limits of a group; zero values do not limit.
type Limits struct {
	Shares float64 `json:"shares,omitempty"` // of cores, against others when cores are short
	Quota  float64 `json:"quota,omitempty"`  // cores that it may use at most
	Memory uint64  `json:"memory,omitempty"` // bytes, swap included
	PIDs   int     `json:"pids,omitempty"`   // processes and threads
}

// Find tells where the group of a name would be. In version 2 it lies below
// root, which must be in the version 2 hierarchy; an empty root is its top. Nothing is made.
func Find(root, parent, name string) (Group, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return Group{}, err
	}
	defer mounts.Close()
	g := Group{V1: map[string]string{}, Path: filepath.Join("/", parent, name)}
	top := ""
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup2":
			if top == "" {
				top = f[1]
			}
		case "cgroup":
			for _, c := range controllers {
				if slices.Contains(strings.Split(f[3], ","), c) && g.V1[c] == "" {
					g.V1[c] = filepath.Join(f[1], parent, name)
				}
			}
		}
	}
	if root == "" {
		root = top
	}
	if root != "" {
		g.V2 = filepath.Join(root, parent, name)
		if len(g.V1) == 0 {
			g.Limited = true
			inside, err := filepath.Rel(top, g.V2)
			if err != nil || strings.HasPrefix(inside, "..") {
				return Group{}, fmt.Errorf("find cgroup %s: it is not below %s", g.V2, top)
			}
			g.Path = "/" + inside
		}
	}
	if g.V2 == "" && len(g.V1) == 0 {
		return Group{}, errors.New("find cgroups: none are mounted")
	}
	return g, nil
}

// dirs are all folders of the group.
func (g Group) dirs() []string {
	var all []string
	if g.V2 != "" {
		all = append(all, g.V2)
	}
	for _, c := range controllers {
		if d := g.V1[c]; d != "" {
			all = append(all, d)
		}
	}
	return all
}

// Dirs are the folders of the group in every hierarchy, version 2 first. A
// process that writes 0 to cgroup.procs of each joins it.
func (g Group) Dirs() []string { return g.dirs() }

// Make makes the group with its limits; one that is there is given the limits.
func (g Group) Make(l Limits) error {
	for _, d := range g.dirs() {
		err := os.MkdirAll(d, 0o755)
		for try := 0; errors.Is(err, os.ErrNotExist) && try < 10; try++ {
			err = os.MkdirAll(d, 0o755) // another task's end took the group of all away
		}
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	if g.Limited {
		return g.limit2(l)
	}
	return g.limit1(l)
}

// Add brings a process into the group.
func (g Group) Add(pid int) error {
	for _, d := range g.dirs() {
		if err := write(filepath.Join(d, "cgroup.procs"), fmt.Sprint(pid)); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// AddV2 brings a process into the version 2 group alone: what made it has put it
// into the others.
func (g Group) AddV2(pid int) error {
	if g.V2 == "" {
		return nil
	}
	return write(filepath.Join(g.V2, "cgroup.procs"), fmt.Sprint(pid))
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// isGone tells that a cgroup, or the process in question, is no more.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}
