package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The descriptors of a process that becomes a task: what it shall be comes from
// one, and what went wrong goes into the other, which a good end closes.
const (
	initFrom  = 3
	initError = 4
)

// start is what a shim tells the process that becomes a task.
type start struct {
	Process Process
	Cgroups []string
	// Join is a process whose namespaces it joins, instead of making its own.
	Join int
	// Terminal makes its standard input the terminal that controls it.
	Terminal bool
}

// Init turns this process into a task, as the shim tells through a pipe. It
// returns only when that fails, with an error that the shim has been told.
func Init() error {
	runtime.LockOSThread() // namespaces are a thread's; execve keeps those of its own
	unix.CloseOnExec(initError)
	out := os.NewFile(initError, "error")
	in := os.NewFile(initFrom, "start")
	var s start
	data, err := io.ReadAll(in)
	in.Close()
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err == nil {
		err = s.become()
	}
	_, _ = out.WriteString(err.Error())
	out.Close()
	return err
}

func (s *start) become() error {
	for _, d := range s.Cgroups {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	var err error
	if s.Join > 0 {
		err = s.join()
	} else {
		err = s.isolate()
	}
	if err != nil {
		return err
	}
	if s.Terminal {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("take the terminal: %w", err)
		}
	}
	p := s.Process
	if err := unix.Setgroups(p.User.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := unix.Setresgid(p.User.GID, p.User.GID, p.User.GID); err != nil {
		return fmt.Errorf("set gid %d: %w", p.User.GID, err)
	}
	if err := unix.Setresuid(p.User.UID, p.User.UID, p.User.UID); err != nil {
		return fmt.Errorf("set uid %d: %w", p.User.UID, err)
	}
	if p.Dir != "" {
		if err := os.Chdir(p.Dir); err != nil {
			return err
		}
	}
	path, err := lookUp(p)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	return os.NewSyscallError("execute "+path, unix.Exec(path, p.Args, p.Env))
}

// lookUp finds the program in the task's own PATH.
func lookUp(p Process) (string, error) {
	if strings.Contains(p.Args[0], "/") {
		return p.Args[0], nil
	}
	for _, v := range p.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	return exec.LookPath(p.Args[0])
}

// isolate gives a task with a network namespace its mounts and its host name.
func (s *start) isolate() error {
	p := s.Process
	if p.Netns == "" {
		return nil
	}
	if err := enter(p.Netns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make mount and host name namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part mounts from the node's: %w", err)
	}
	for target, source := range p.Binds {
		// A link such as Debian's resolv.conf is resolved here, for bind mounts
		// stand on files.
		if real, err := filepath.EvalSymlinks(target); err == nil {
			target = real
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s in the place of %s: %w", source, target, err)
		}
	}
	if p.Host != "" {
		if err := unix.Sethostname([]byte(p.Host)); err != nil {
			return fmt.Errorf("set host name %s: %w", p.Host, err)
		}
	}
	return nil
}

// join enters the namespaces of a task that runs.
func (s *start) join() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // or else mount namespaces cannot be entered
		return fmt.Errorf("part from the other threads: %w", err)
	}
	open := map[string]int{"uts": unix.CLONE_NEWUTS, "net": unix.CLONE_NEWNET, "mnt": unix.CLONE_NEWNS}
	for _, name := range []string{"uts", "net", "mnt"} {
		path := fmt.Sprintf("/proc/%d/ns/%s", s.Join, name)
		if same(path, "/proc/thread-self/ns/"+name) {
			continue
		}
		if err := enter(path, open[name]); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b string) bool {
	x, err := os.Readlink(a)
	y, other := os.Readlink(b)
	return err == nil && other == nil && x == y
}

func enter(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}
