package load

import (
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// Main does a role's work and exits, if this process was started for one; it
// returns at once otherwise.
func Main() {
	role := Role(os.Getenv(roleVariable))
	if role == "" {
		return
	}
	if err := run(role); err != nil {
		fmt.Fprintf(os.Stderr, "benchmark %s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(role Role) error {
	// A thread in a system call that the runtime does not know of cannot be
	// stopped, so nothing may want to stop it: there is no collector, and little
	// garbage.
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	if cpu, err := strconv.Atoi(os.Getenv(cpuVariable)); err == nil && cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	encoder, decoder := gob.NewEncoder(os.Stdout), gob.NewDecoder(os.Stdin)
	if role == Server {
		s, err := newServer()
		if err != nil {
			return encoder.Encode(err.Error())
		}
		if err := encoder.Encode(""); err != nil {
			return err
		}
		return s.run()
	}
	if err := encoder.Encode(""); err != nil {
		return err
	}
	for {
		var j Job
		if err := decoder.Decode(&j); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := encoder.Encode(j.run()); err != nil {
			return err
		}
		runtime.GC()
	}
}
