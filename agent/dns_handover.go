package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A successor takes the proxy's sockets over in these steps:
//
//  1. The successor, whose configuration is checked by now, asks at the socket
//     in run_dir.
//  2. The old agent ends everything but the proxy, lets go of the lock, and
//     passes copies of the sockets. It goes on answering by its last table.
//  3. The successor takes the lock, applies its snapshot, and begins to read the
//     same sockets. Both answer now: each query goes to one of them.
//  4. Told so, the old agent stops reading, answers what it has read, and ends.
//
// When the successor ends before that, so does the old agent, with an error:
// whoever supervises it starts it anew.

const (
	// handoverDrain is how long what was read may take in step 4, and stopDrain
	// when systemd keeps the sockets: there nobody answers meanwhile.
	handoverDrain = 5 * time.Second
	stopDrain     = time.Second
	// handoverTime is how long the old agent may take for step 2.
	handoverTime = 30 * time.Second
	// filesPerMessage is below the kernel's limit of 253 (SCM_MAX_FD).
	filesPerMessage = 200
)

// What is said on the socket.
const (
	sayTakeOver = 't'
	saySockets  = 's' // with descriptors
	sayAll      = 'a' // there are no more
	sayServing  = 'd'
)

var (
	errHandedOver = errors.New("a successor takes over")
	errNoSuccess  = errors.New("the successor ended before it served; this agent had handed everything over")
)

func (c Config) handoverPath() string { return filepath.Join(c.RunDir, "handover.sock") }

// serveHandover waits for a successor. It returns errHandedOver when there is one.
func (a *Agent) serveHandover(ctx context.Context) error {
	path := a.config.handoverPath()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old hand-over socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on the hand-over socket: %w", err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for a successor: %w", err)
		}
		var said [1]byte
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(said[:]); err != nil || said[0] != sayTakeOver {
			conn.Close()
			continue
		}
		a.log.Info("a successor takes over")
		a.successor = conn
		return errHandedOver
	}
}

// handOver ends what is left of this agent for its successor's sake; it does
// nothing without one. The lock must be free by now.
func (a *Agent) handOver() (err error) {
	if a.successor == nil {
		return nil
	}
	conn := a.successor
	defer conn.Close()
	if a.dns.stop != nil {
		defer func() { err = errors.Join(err, a.dns.stop()) }()
	}
	if err := a.passSockets(conn); err != nil {
		return fmt.Errorf("hand over to the successor: %w", err)
	}
	var said [1]byte
	_ = conn.SetReadDeadline(time.Time{})
	if _, err := conn.Read(said[:]); err != nil || said[0] != sayServing {
		return errNoSuccess
	}
	if a.dns.drain != nil {
		a.dns.drain(handoverDrain)
	}
	return nil
}

// passSockets sends copies of the proxy's sockets, of which there are none while
// it has not started.
func (a *Agent) passSockets(conn *net.UnixConn) error {
	var files []*os.File
	if a.dns.stop != nil {
		var err error
		if files, err = a.dns.proxy.Sockets(); err != nil {
			return err
		}
	}
	defer closeFiles(files)
	for rest := files; len(rest) > 0; {
		n := min(len(rest), filesPerMessage)
		if err := SendFiles(conn, []byte{saySockets}, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	_, err := conn.Write([]byte{sayAll})
	return err
}

// takeOver asks the agent that runs for its sockets. Without one it does nothing.
func (a *Agent) takeOver() error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.config.handoverPath(), Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		a.log.Info("no agent to take over from")
		return nil
	}
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	files, err := askForSockets(conn)
	if err != nil {
		closeFiles(files)
		conn.Close()
		return fmt.Errorf("take over: %w", err)
	}
	a.predecessor, a.dns.sockets = conn, append(a.dns.sockets, files...)
	return nil
}

func askForSockets(conn *net.UnixConn) (files []*os.File, err error) {
	_ = conn.SetDeadline(time.Now().Add(handoverTime))
	if _, err := conn.Write([]byte{sayTakeOver}); err != nil {
		return nil, err
	}
	rights := make([]byte, unix.CmsgSpace(4*filesPerMessage))
	for {
		var said [1]byte
		_, n, _, _, err := conn.ReadMsgUnix(said[:], rights)
		if err != nil {
			return files, err
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil {
			return files, err
		}
		for i := range messages {
			numbers, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				return files, err
			}
			for _, number := range numbers {
				unix.CloseOnExec(number)
				files = append(files, os.NewFile(uintptr(number), "socket"))
			}
		}
		switch said[0] {
		case saySockets:
		case sayAll:
			return files, nil
		default:
			return files, fmt.Errorf("the agent said %q", said[0])
		}
	}
}

// served tells whoever waits for it that the proxy answers: the agent before
// this one, and the keeper of the sockets.
func (a *Agent) served() error {
	if a.predecessor != nil {
		_, _ = a.predecessor.Write([]byte{sayServing}) // one that has ended needs no word
		a.predecessor.Close()
		a.predecessor = nil
	}
	if a.keepSockets == nil {
		return nil
	}
	files, err := a.dns.proxy.Sockets()
	if err != nil {
		return err
	}
	defer closeFiles(files)
	if err := a.keepSockets(files); err != nil {
		a.log.Warn("sockets not kept: a restart will lose queries", "component", "dns", "error", err)
	}
	return nil
}

// SendFiles passes copies of descriptors over a unix socket with a message.
func SendFiles(conn *net.UnixConn, message []byte, files []*os.File) error {
	numbers := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			// File.Fd would make the socket block, for all who have copies of it.
			// The caller keeps the file open meanwhile.
			err = raw.Control(func(fd uintptr) { numbers = append(numbers, int(fd)) })
		}
		if err != nil {
			return fmt.Errorf("pass descriptors: %w", err)
		}
	}
	// Not by WriteMsgUnix, which refuses a datagram socket that is connected.
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("pass descriptors: %w", err)
	}
	outer := raw.Write(func(fd uintptr) (done bool) {
		err = unix.Sendmsg(int(fd), message, unix.UnixRights(numbers...), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err := errors.Join(outer, err); err != nil {
		return fmt.Errorf("pass descriptors: %w", err)
	}
	return nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
