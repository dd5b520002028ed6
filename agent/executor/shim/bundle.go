package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startBundle has the OCI runtime create the container, brings it into our
// version 2 cgroup where the runtime knows version 1 only, and starts it. The
// container's first process becomes our child when the runtime has ended, since
// we are its subreaper.
func (s *server) startBundle(stdio [3]*os.File) (int, <-chan unix.WaitStatus, error) {
	for _, m := range s.plan.Before {
		if err := unix.Mount(m.Source, m.Target, m.Type, 0, m.Data); err != nil {
			return 0, nil, fmt.Errorf("mount %s at %s: %w", m.Type, m.Target, err)
		}
	}
	pidFile := filepath.Join(s.dir, "pid")
	if err := s.runtime(stdio, "create", "--bundle", s.plan.Bundle, "--pid-file", pidFile, s.plan.ID); err != nil {
		return 0, nil, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, nil, fmt.Errorf("read %s: %w", pidFile, err)
	}
	ended := s.reaper.adopt(pid)
	if err := s.plan.Group.AddV2(pid); err != nil {
		return 0, nil, fmt.Errorf("join cgroup: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	return pid, ended, s.runtime([3]*os.File{null, null, null}, "start", s.plan.ID)
}

// removeBundle has the runtime forget the container, and undoes the mounts.
func (s *server) removeBundle() {
	if s.plan.Bundle == "" {
		return
	}
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		if err := s.runtime([3]*os.File{null, null, null}, "delete", "--force", s.plan.ID); err != nil && !strings.Contains(err.Error(), "does not exist") {
			fmt.Fprintln(os.Stderr, err)
		}
		null.Close()
	}
	for i := len(s.plan.Before) - 1; i >= 0; i-- {
		_ = unix.Unmount(s.plan.Before[i].Target, unix.MNT_DETACH)
	}
}

// runtime runs the OCI runtime to its end. What it has to complain of it writes
// into a file, for its output is the container's.
func (s *server) runtime(stdio [3]*os.File, args ...string) error {
	path, err := exec.LookPath(s.plan.Runtime)
	if err != nil {
		return err
	}
	log := filepath.Join(s.dir, "runtime.log")
	_ = os.Remove(log)
	full := append([]string{path, "--root", s.plan.State, "--log", log}, args...)
	_, ended, err := s.reaper.start(path, full, &os.ProcAttr{Dir: "/", Env: []string{"PATH=" + defaultPath}, Files: stdio[:]})
	if err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	select {
	case status := <-ended:
		if status.ExitStatus() == 0 {
			return nil
		}
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%s %s: %s", filepath.Base(path), args[0], complaint(said))
	case <-time.After(time.Minute):
		return fmt.Errorf("%s %s did not end within a minute", filepath.Base(path), args[0])
	}
}

// complaint is the last message of a runtime's log, whose lines are
// time="…" level=error msg="…".
func complaint(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	last := lines[len(lines)-1]
	if _, quoted, ok := strings.Cut(last, "msg="); ok {
		if text, err := strconv.Unquote(quoted); err == nil {
			return text
		}
		return quoted
	}
	if last == "" {
		return "failed without a word"
	}
	return last
}
