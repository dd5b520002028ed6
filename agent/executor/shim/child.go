package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spawn starts a process through the init stage and returns when it has been
// executed, or why it could not be.
func (s *server) spawn(what start, stdio [3]*os.File) (int, <-chan unix.WaitStatus, error) {
	told, err := json.Marshal(what)
	if err != nil {
		return 0, nil, err
	}
	fromRead, fromWrite, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer fromRead.Close()
	errorRead, errorWrite, err := os.Pipe()
	if err != nil {
		fromWrite.Close()
		return 0, nil, err
	}
	defer errorRead.Close()
	pid, ended, err := s.reaper.start("/proc/self/exe", []string{"weir-task", InitCommand}, &os.ProcAttr{
		Dir: "/", Env: []string{"PATH=" + defaultPath, "GOMAXPROCS=1"},
		Files: []*os.File{stdio[0], stdio[1], stdio[2], fromRead, errorWrite},
		Sys:   &sysProcAttr,
	})
	errorWrite.Close()
	if err != nil {
		fromWrite.Close()
		return 0, nil, fmt.Errorf("start the init stage: %w", err)
	}
	_, err = fromWrite.Write(told)
	fromWrite.Close()
	if err != nil {
		<-ended
		return 0, nil, fmt.Errorf("tell the init stage: %w", err)
	}
	said, _ := io.ReadAll(errorRead)
	if len(said) > 0 {
		<-ended
		return 0, nil, errors.New(string(said))
	}
	return pid, ended, nil
}

// defaultPath is where programs are looked for when nobody says otherwise.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// startProcess starts the task of a plan without a bundle.
func (s *server) startProcess(stdio [3]*os.File) (int, <-chan unix.WaitStatus, error) {
	return s.spawn(start{Process: s.plan.Process, Cgroups: s.plan.Group.Dirs()}, stdio)
}

// sysProcAttr gives each task a session of its own.
var sysProcAttr = unix.SysProcAttr{Setsid: true}
