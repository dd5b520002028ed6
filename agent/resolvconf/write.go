package resolvconf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// replace writes a file in one step, so that nobody reads half of it; a link
// there is replaced itself. Over a mount (of a container, of a lab's host) there
// is no such step, and it is written in place.
func replace(path string, text []byte, mode os.FileMode, owner *origin) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".weir-")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // gone already when all went well
	_, err = temporary.Write(text)
	if err == nil {
		err = temporary.Chmod(mode)
	}
	if err == nil && owner != nil {
		// Without CAP_CHOWN it stays ours, which everybody can read all the same.
		_ = temporary.Chown(owner.UID, owner.GID)
	}
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	err = os.Rename(temporary.Name(), path)
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
		return overwrite(path, text)
	}
	return err
}

func overwrite(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return f.Truncate(size)
}

// relink puts a symbolic link in a file's place in one step.
func relink(path, target string) error {
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.weir-%d", filepath.Base(path), os.Getpid()))
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return err
	}
	return nil
}
