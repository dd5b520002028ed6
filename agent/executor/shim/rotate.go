package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A log has at most so many files of at most so many bytes: NAME, which is
// written, NAME.1, which was before it, and so on.
const (
	maxLog   = 10 << 20
	keepLogs = 5
)

// rotated is a log file that makes room for itself.
type rotated struct {
	path  string
	owner User
	limit int64
	file  *os.File
	size  int64
}

// openLog goes on with the file that is there. The sandbox is the task's to
// write, so a link that it put in the file's place is not followed.
func openLog(path string, owner User, limit int64) (*rotated, error) {
	r := &rotated{path: path, owner: owner, limit: limit}
	return r, r.open()
}

func (r *rotated) open() error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(r.path, flags, 0o644)
	if err != nil {
		return err
	}
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		f.Close()
		return err
	}
	if s.Mode&unix.S_IFMT != unix.S_IFREG || s.Nlink != 1 {
		f.Close()
		return fmt.Errorf("open log %s: somebody put something else in its place", filepath.Base(r.path))
	}
	_ = f.Chown(r.owner.UID, r.owner.GID)
	r.file, r.size = f, s.Size
	return nil
}

// Write never fails: a log that cannot be written is lost, but its task is not
// kept from running.
func (r *rotated) Write(b []byte) (int, error) {
	if r.file == nil || r.size > 0 && r.size+int64(len(b)) > r.limit {
		r.rotate()
	}
	if r.file != nil {
		n, _ := r.file.Write(b)
		r.size += int64(n)
	}
	return len(b), nil
}

func (r *rotated) rotate() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
		for i := keepLogs - 1; i > 0; i-- {
			from := r.path
			if i > 1 {
				from = fmt.Sprintf("%s.%d", r.path, i-1)
			}
			if err := os.Rename(from, fmt.Sprintf("%s.%d", r.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
				_ = os.Truncate(r.path, 0) // no history is better than a full disk
				break
			}
		}
	}
	_ = r.open()
}
