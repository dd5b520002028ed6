package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/api/client"
)

// exec runs a command inside a task: the connection is upgraded, and carries
// frames until the command ends or the client hangs up, which kills it.
func (t *tasksComponent) exec(w http.ResponseWriter, r *http.Request) {
	args := r.URL.Query()["arg"]
	tty, _ := strconv.ParseBool(r.FormValue("tty"))
	switch {
	case r.Header.Get("Upgrade") != client.ExecProtocol:
		problem(w, http.StatusUpgradeRequired, errors.New("exec needs an upgrade to "+client.ExecProtocol))
		return
	case len(args) == 0:
		problem(w, http.StatusBadRequest, errors.New("arg is missing: there is no command to run"))
		return
	}
	if _, err := t.supervisor.Spec(r.PathValue("id")); err != nil {
		known := taskError(err)
		problem(w, known.status, known.err)
		return
	}
	stdio, err := openStdio(tty)
	if err != nil {
		problem(w, http.StatusInternalServerError, err)
		return
	}
	defer stdio.close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		problem(w, http.StatusInternalServerError, err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", client.ExecProtocol); err != nil {
		return
	}
	// The request's own context ends with the hijack of its connection.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	out := client.NewFrameWriter(conn)
	go func() { stdio.receive(buffered); cancel() }()
	copied := stdio.send(out)
	code, err := t.supervisor.Exec(ctx, r.PathValue("id"), executor.Command{Args: args, TTY: tty, Stdio: stdio.theirs})
	stdio.ended()
	copied.Wait()
	end := client.ExecEnd{Code: code}
	if err != nil {
		end.Error = err.Error()
	}
	data, _ := json.Marshal(end) // two plain fields
	_ = out.Write(client.FrameExit, data)
}

// stdio are the files of a command: its ends, and ours.
type stdio struct {
	theirs [3]*os.File
	in     *os.File // what we write goes to the command
	out    map[client.FrameKind]*os.File
	master *os.File // of a terminal; nil for pipes
}

func openStdio(tty bool) (*stdio, error) {
	if tty {
		return openTerminal()
	}
	s := &stdio{out: map[client.FrameKind]*os.File{}}
	var ends [3][2]*os.File
	for i := range ends {
		read, write, err := os.Pipe()
		if err != nil {
			s.close()
			return nil, err
		}
		if i == 0 {
			s.theirs[0], s.in = read, write
			continue
		}
		s.theirs[i], s.out[client.FrameStdout+client.FrameKind(i-1)] = write, read
	}
	return s, nil
}

func openTerminal() (*stdio, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var number int
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		master.Close()
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	return &stdio{
		theirs: [3]*os.File{slave, slave, slave}, in: master, master: master,
		out: map[client.FrameKind]*os.File{client.FrameStdout: master},
	}, nil
}

// receive passes input on until the client hangs up.
func (s *stdio) receive(in io.Reader) {
	for {
		kind, data, err := client.ReadFrame(in)
		if err != nil {
			return
		}
		switch {
		case kind == client.FrameStdin && len(data) > 0:
			_, _ = s.in.Write(data) // a command may close its input
		case kind == client.FrameStdin && s.master != nil:
			_, _ = s.in.Write([]byte{4}) // the end of input, on a terminal
		case kind == client.FrameStdin:
			s.in.Close()
		case kind == client.FrameResize && s.master != nil:
			s.resize(data)
		}
	}
}

func (s *stdio) resize(data []byte) {
	var size client.WindowSize
	if json.Unmarshal(data, &size) != nil {
		return
	}
	if raw, err := s.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: size.Columns, Row: size.Rows})
		})
	}
}

// send passes output on until all of the command's ends are closed.
func (s *stdio) send(out *client.FrameWriter) *sync.WaitGroup {
	var copied sync.WaitGroup
	for kind, f := range s.out {
		copied.Go(func() {
			buffer := make([]byte, 32<<10)
			for {
				n, err := f.Read(buffer)
				if n > 0 && out.Write(kind, buffer[:n]) != nil {
					return
				}
				if err != nil {
					return
				}
			}
		})
	}
	return &copied
}

// ended closes the command's ends; what was written comes for a moment still, in
// case a child of it holds them open.
func (s *stdio) ended() {
	for _, f := range s.theirs {
		f.Close()
	}
	for _, f := range s.out {
		_ = f.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}
}

func (s *stdio) close() {
	for _, f := range s.theirs {
		if f != nil {
			f.Close()
		}
	}
	if s.in != nil {
		s.in.Close()
	}
	for _, f := range s.out {
		f.Close()
	}
}
