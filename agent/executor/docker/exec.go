package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/weirproject/weir/agent/executor"
)

// usageWithin is how long the engine may take to tell what a container uses.
const usageWithin = 2 * time.Second

// Usage implements executor.Executor.
func (x *Executor) Usage(l executor.Launch) executor.Usage {
	ctx, cancel := context.WithTimeout(context.Background(), usageWithin)
	defer cancel()
	answer, err := x.engine.ContainerStats(ctx, containerName(l), client.ContainerStatsOptions{})
	if err != nil {
		return executor.Usage{}
	}
	defer answer.Body.Close()
	var s container.StatsResponse
	if json.NewDecoder(answer.Body).Decode(&s) != nil {
		return executor.Usage{}
	}
	return executor.Usage{CPUSeconds: float64(s.CPUStats.CPUUsage.TotalUsage) / 1e9, Memory: s.MemoryStats.Usage}
}

// Exec implements executor.Executor. The engine cannot kill a command; one
// whose ctx ends loses its input and output.
func (x *Executor) Exec(ctx context.Context, l executor.Launch, c executor.Command) (int, error) {
	created, err := x.engine.ExecCreate(ctx, containerName(l), client.ExecCreateOptions{
		Cmd: c.Args, TTY: c.TTY, AttachStdin: true, AttachStdout: true, AttachStderr: !c.TTY,
	})
	if err != nil {
		return 0, gone(err)
	}
	conn, err := x.engine.ExecAttach(ctx, created.ID, client.ExecAttachOptions{TTY: c.TTY})
	if err != nil {
		return 0, gone(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	if c.TTY {
		if _, err := term.MakeRaw(int(c.Stdio[0].Fd())); err != nil { // the engine's terminal does the rest
			return 0, err
		}
	}
	go feed(conn, c.Stdio[0])
	if c.TTY {
		_, err = io.Copy(c.Stdio[1], conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(c.Stdio[1], c.Stdio[2], conn.Reader)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	found, err := x.engine.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	return found.ExitCode, err
}

// feed passes input on from a copy of the file, which it can be kept from
// waiting on: the caller closes its own.
func feed(conn client.ExecAttachResult, in *os.File) {
	fd, err := unix.FcntlInt(in.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "stdin")
	defer f.Close()
	_, _ = io.Copy(conn.Conn, f)
	_ = conn.CloseWrite()
}

// Logs implements executor.Logger.
func (x *Executor) Logs(ctx context.Context, l executor.Launch, stream string, follow bool) (io.ReadCloser, error) {
	if f, err := os.Open(filepath.Join(l.Sandbox, stream)); err == nil {
		return f, nil // of a container that is removed
	}
	answer, err := x.engine.ContainerLogs(ctx, containerName(l), client.ContainerLogsOptions{
		ShowStdout: stream == "stdout", ShowStderr: stream == "stderr", Follow: follow,
	})
	if err != nil {
		return nil, gone(err)
	}
	if l.Spec.Container.TTY {
		return answer, nil
	}
	read, write := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(write, write, answer)
		answer.Close()
		write.CloseWithError(err)
	}()
	return read, nil
}

// keepLogs puts the logs of a container that is to be removed where those of
// other tasks are.
func (x *Executor) keepLogs(ctx context.Context, l executor.Launch) error {
	var faults []error
	for _, stream := range []string{"stdout", "stderr"} {
		log, err := x.Logs(ctx, l, stream, false)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(l.Sandbox, stream), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = io.Copy(f, log)
			f.Close()
		} else if errors.Is(err, os.ErrExist) {
			err = nil
		}
		log.Close()
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
