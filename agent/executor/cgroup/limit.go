package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// period of the CPU quota, in microseconds: the kernel's own default.
const period = 100000

// swapLimitMissing tells whether the kernel does not account swap: then there is
// no file to write to, and memory alone is limited.
func swapLimitMissing(path string) bool {
	_, err := os.Stat(path)
	return os.IsNotExist(err)
}

// limit2 writes the limits of version 2. Parents hand the controllers down one
// by one; a controller that the node lacks is an error only when it is needed.
func (g Group) limit2(l Limits) error {
	top := strings.TrimSuffix(g.V2, g.Path)
	dir := top
	for _, part := range strings.Split(strings.Trim(filepath.Dir(g.Path), "/"), "/") {
		for _, c := range []string{"+cpu", "+memory", "+pids"} {
			_ = write(filepath.Join(dir, "cgroup.subtree_control"), c)
		}
		dir = filepath.Join(dir, part)
	}
	for _, c := range []string{"+cpu", "+memory", "+pids"} {
		_ = write(filepath.Join(dir, "cgroup.subtree_control"), c)
	}
	if l.Shares > 0 {
		// As runc turns shares (1024 a core) into weights.
		weight := 1 + ((max(2, l.Shares*1024)-2)*9999)/262142
		if err := g.set2("cpu.weight", strconv.Itoa(int(min(weight, 10000)))); err != nil {
			return err
		}
	}
	if l.Quota > 0 {
		if err := g.set2("cpu.max", fmt.Sprintf("%d %d", max(1000, int(l.Quota*period)), period)); err != nil {
			return err
		}
	}
	if l.Memory > 0 {
		if err := g.set2("memory.max", strconv.FormatUint(l.Memory, 10)); err != nil {
			return err
		}
		if path := filepath.Join(g.V2, "memory.swap.max"); !swapLimitMissing(path) {
			if err := write(path, "0"); err != nil {
				return err
			}
		}
	}
	if l.PIDs > 0 {
		return g.set2("pids.max", strconv.Itoa(l.PIDs))
	}
	return nil
}

func (g Group) set2(file, value string) error {
	if err := write(filepath.Join(g.V2, file), value); err != nil {
		return fmt.Errorf("limit cgroup: set %s to %s: %w", file, value, err)
	}
	return nil
}

// limit1 writes the limits of version 1.
func (g Group) limit1(l Limits) error {
	if l.Shares > 0 {
		if err := g.set1("cpu", "cpu.shares", strconv.Itoa(max(2, int(l.Shares*1024)))); err != nil {
			return err
		}
	}
	if l.Quota > 0 {
		if err := g.set1("cpu", "cpu.cfs_period_us", strconv.Itoa(period)); err != nil {
			return err
		}
		if err := g.set1("cpu", "cpu.cfs_quota_us", strconv.Itoa(max(1000, int(l.Quota*period)))); err != nil {
			return err
		}
	}
	if l.Memory > 0 {
		if err := g.limitMemory1(strconv.FormatUint(l.Memory, 10)); err != nil {
			return err
		}
	}
	if l.PIDs > 0 {
		return g.set1("pids", "pids.max", strconv.Itoa(l.PIDs))
	}
	return nil
}

// limitMemory1 goes by the order that the kernel asks for: memory with swap is
// never below memory alone, so when it grows it goes first.
func (g Group) limitMemory1(limit string) error {
	swap := filepath.Join(g.V1["memory"], "memory.memsw.limit_in_bytes")
	missing := swapLimitMissing(swap)
	if !missing {
		_ = write(swap, limit) // fails when it shrinks; it is written again below
	}
	if err := g.set1("memory", "memory.limit_in_bytes", limit); err != nil {
		return err
	}
	if missing {
		return nil
	}
	return g.set1("memory", "memory.memsw.limit_in_bytes", limit)
}

func (g Group) set1(controller, file, value string) error {
	dir := g.V1[controller]
	if dir == "" {
		return fmt.Errorf("limit cgroup: the node has no %s controller for %s", controller, file)
	}
	if err := write(filepath.Join(dir, file), value); err != nil {
		return fmt.Errorf("limit cgroup: set %s to %s: %w", file, value, err)
	}
	return nil
}
