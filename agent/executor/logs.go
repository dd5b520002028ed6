package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// followEvery is how often a followed log is looked at.
const followEvery = 100 * time.Millisecond

// Logs returns what a task wrote to a stream, stdout or stderr, from an offset
// in the file that is written now; a negative one counts from its end. With
// follow it goes on until the task ends or ctx does, over rotations. The logs of
// a task that is forgotten are there as long as its sandbox. The error is
// ErrNotFound.
func (s *Supervisor) Logs(ctx context.Context, id, stream string, follow bool, offset int64) (io.ReadCloser, error) {
	if stream != "stdout" && stream != "stderr" {
		return nil, fmt.Errorf("stream %q is neither stdout nor stderr", stream)
	}
	if err := checkID(id); err != nil {
		return nil, err
	}
	t, err := s.find(id)
	if err == nil {
		if x, ok := t.executor.(Logger); ok {
			return x.Logs(ctx, t.launch, stream, follow)
		}
	}
	path := filepath.Join(s.sandbox(id), stream)
	f, failed := openTail(path, offset)
	if errors.Is(failed, os.ErrNotExist) && err != nil {
		return nil, err // neither task nor sandbox
	}
	if failed != nil && !errors.Is(failed, os.ErrNotExist) {
		return nil, failed
	}
	if !follow || t == nil {
		if f == nil {
			return io.NopCloser(eof{}), nil
		}
		return f, nil
	}
	return &tail{ctx: ctx, path: path, file: f, ended: func() bool { return t.state().Ended() }}, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// openTail opens a log for reading. The task may have put anything in its place.
func openTail(path string, offset int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open log %s: it is no regular file", filepath.Base(path))
	}
	if err == nil {
		if offset < 0 {
			offset = max(0, info.Size()+offset)
		}
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tail reads a file that grows and is replaced.
type tail struct {
	ctx   context.Context
	path  string
	file  *os.File // nil: not there yet
	ended func() bool
}

func (t *tail) Read(b []byte) (int, error) {
	for {
		ended := t.ended() // before the look, so that nothing is missed
		if t.file != nil {
			if n, err := t.file.Read(b); n > 0 || err != nil && err != io.EOF {
				return n, err
			}
		}
		next, err := openTail(t.path, 0)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return 0, err
		case err == nil && t.replaced(next):
			if t.file != nil {
				// What was written since the look above is in the old one still.
				if n, _ := t.file.Read(b); n > 0 {
					next.Close()
					return n, nil
				}
				t.file.Close()
			}
			t.file = next
			continue
		case err == nil:
			next.Close()
		}
		if ended {
			return 0, io.EOF
		}
		if !sleep(t.ctx, followEvery) {
			return 0, t.ctx.Err()
		}
	}
}

func (t *tail) replaced(next *os.File) bool {
	if t.file == nil {
		return true
	}
	old, err := t.file.Stat()
	if err != nil {
		return true
	}
	now, err := next.Stat()
	return err == nil && !os.SameFile(old, now)
}

// Close closes the file.
func (t *tail) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

// Exec runs a command inside a running task and returns its exit code; a signal
// makes it 128 and more. When ctx ends the command is killed. The error is
// ErrNotFound or ErrEnded, or tells why the command cannot be executed.
func (s *Supervisor) Exec(ctx context.Context, id string, c Command) (int, error) {
	t, err := s.find(id)
	if err != nil {
		return 0, err
	}
	if t.executor == nil || t.state().Ended() {
		return 0, ErrEnded
	}
	return t.executor.Exec(ctx, t.launch, c)
}
