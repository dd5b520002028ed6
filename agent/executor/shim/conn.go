package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxRequest is how long a request may be, in bytes.
const maxRequest = 256 << 10

func (s *server) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			s.serve(conn)
		}()
	}
}

// serve answers the one request of a connection.
func (s *server) serve(conn *net.UnixConn) {
	out := json.NewEncoder(conn)
	r, files, err := readRequest(conn)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		_ = out.Encode(reply{Error: err.Error()})
		return
	}
	switch r.Verb {
	case "wait":
		_ = out.Encode(reply{PID: s.pid, Started: s.started})
		<-s.done
		s.mu.Lock()
		exit := s.exit
		s.mu.Unlock()
		_ = out.Encode(reply{Exit: exit})
	case "stop":
		answer := reply{PID: s.pid}
		if err := s.stop(r.Grace.Std(), r.Reason); err != nil && !errors.Is(err, unix.ESRCH) {
			answer.Error = err.Error()
		}
		_ = out.Encode(answer)
	case "exec":
		s.serveExec(conn, out, r, files)
	default:
		_ = out.Encode(reply{Error: fmt.Sprintf("there is no verb %q", r.Verb)})
	}
}

// serveExec runs a process beside the task. It is killed when the connection ends.
func (s *server) serveExec(conn *net.UnixConn, out *json.Encoder, r request, files []*os.File) {
	if len(files) != 3 || len(r.Args) == 0 {
		_ = out.Encode(reply{Error: "exec needs arguments and three files"})
		return
	}
	pid, ended, err := s.exec(r, [3]*os.File(files))
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		_ = out.Encode(reply{Error: err.Error()})
		return
	}
	_ = out.Encode(reply{PID: pid})
	hungUp := make(chan struct{})
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		close(hungUp)
	}()
	var status unix.WaitStatus
	select {
	case status = <-ended:
	case <-hungUp:
		_ = unix.Kill(-pid, unix.SIGKILL) // it leads its session, and so its group
		status = <-ended
	}
	exit := &Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		exit.Code, exit.Signal = 0, int(status.Signal())
	}
	_ = out.Encode(reply{Exit: exit})
}

// exec starts a process in the task's namespaces and cgroup, with its
// environment and user.
func (s *server) exec(r request, stdio [3]*os.File) (int, <-chan unix.WaitStatus, error) {
	if s.plan.Bundle == "" {
		p := s.plan.Process
		p.Args = r.Args
		return s.spawn(start{Process: p, Cgroups: s.plan.Group.Dirs(), Join: s.pid, Terminal: r.TTY}, stdio)
	}
	args := []string{s.plan.Runtime, "--root", s.plan.State, "--log", filepath.Join(s.dir, "exec.log"), "exec"}
	if r.TTY {
		args = append(args, "--tty")
	}
	args = append(append(args, s.plan.ID), r.Args...)
	p := Process{Args: args, Env: []string{"PATH=" + defaultPath}, Dir: "/"}
	var joined []string
	if s.plan.Group.V2 != "" && !s.plan.Group.Limited {
		joined = []string{s.plan.Group.V2} // the runtime joins the others
	}
	return s.spawn(start{Process: p, Cgroups: joined, Terminal: r.TTY}, stdio)
}

// readRequest reads one line, and the files that came with its first bytes.
func readRequest(conn *net.UnixConn) (r request, files []*os.File, err error) {
	var line []byte
	buffer, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(3*4))
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, m, _, _, err := conn.ReadMsgUnix(buffer, oob)
		if err != nil {
			return r, files, err
		}
		line = append(line, buffer[:n]...)
		if m > 0 {
			files = append(files, received(oob[:m])...)
		}
		if n == 0 || len(line) > maxRequest {
			return r, files, errors.New("the request has no end")
		}
	}
	return r, files, json.Unmarshal(line, &r)
}

func received(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stdio"))
		}
	}
	return files
}
