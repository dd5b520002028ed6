package testenv

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// process names a process so that a later one with the same number is not
// mistaken for it.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
}

// newProcess describes a process that runs now.
func newProcess(pid int) (process, error) {
	start, _, err := readStat(pid)
	return process{pid, start}, err
}

// readProcess reads a file that save wrote.
func readProcess(path string) (process, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return process{}, err
	}
	var p process
	if _, err := fmt.Sscan(string(data), &p.pid, &p.start); err != nil {
		return process{}, fmt.Errorf("read %s: %w", path, err)
	}
	return p, nil
}

func (p process) save(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%d %d\n", p.pid, p.start), 0o644)
}

// alive is false for a zombie too: it holds no namespace any more.
func (p process) alive() bool {
	if p.pid <= 0 {
		return false
	}
	start, state, err := readStat(p.pid)
	return err == nil && start == p.start && state != 'Z' && state != 'X'
}

// readStat reads start time and state. See proc_pid_stat(5): the command in
// parentheses may hold anything, so fields are counted after the last one.
func readStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}
