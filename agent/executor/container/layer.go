package container

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// The names by which a layer takes away what is below it (OCI image spec).
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// unpackVerified unpacks a layer into a folder and compares its digest.
func unpackVerified(ctx context.Context, dir string, in io.Reader, want v1.Hash) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	hash := sha256.New()
	in = io.TeeReader(in, hash)
	u := &unpacker{root: root, dirs: map[string]time.Time{}}
	if err := u.unpack(ctx, tar.NewReader(in)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // the padding
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want.Hex {
		return fmt.Errorf("its content has sha256 %s", got)
	}
	return nil
}

// unpacker makes an overlayfs layer of a tar. Nothing in it leaves the root.
type unpacker struct {
	root *os.Root
	dirs map[string]time.Time // whose times are set last, for their content changes them
}

func (u *unpacker) unpack(ctx context.Context, in *tar.Reader) error {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" {
			continue
		}
		if err := u.entry(h, in, name); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for name, at := range u.dirs {
		_ = u.root.Chtimes(name, at, at)
	}
	return nil
}

func (u *unpacker) entry(h *tar.Header, in io.Reader, name string) error {
	dir, base := path.Split(name)
	if dir = strings.TrimSuffix(dir, "/"); dir != "" {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch {
	case base == opaque:
		return u.at(dir, func(fd int, _ string) error {
			return unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0)
		}, "")
	case strings.HasPrefix(base, whiteout):
		return u.at(dir, func(fd int, base string) error {
			return unix.Mknodat(fd, base, unix.S_IFCHR, 0) // overlayfs's own whiteout
		}, strings.TrimPrefix(base, whiteout))
	}
	if h.Typeflag != tar.TypeDir {
		if err := u.root.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := u.make(h, in, name); err != nil {
		return err
	}
	return u.attributes(h, name)
}

// at calls do with the descriptor of a folder.
func (u *unpacker) at(dir string, do func(fd int, base string) error, base string) error {
	if dir == "" {
		dir = "."
	}
	f, err := u.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(int(f.Fd()), base)
}

func (u *unpacker) make(h *tar.Header, in io.Reader, name string) error {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	node := func(kind uint32) error {
		return u.at(dir, func(fd int, base string) error {
			return unix.Mknodat(fd, base, kind|uint32(h.Mode&0o7777), int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
		}, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs[name] = h.ModTime
		if info, err := u.root.Lstat(name); err == nil && !info.IsDir() {
			if err := u.root.Remove(name); err != nil {
				return err
			}
		}
		return u.root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, in)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.root.Link(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"), name)
	case tar.TypeChar:
		return node(unix.S_IFCHR)
	case tar.TypeBlock:
		return node(unix.S_IFBLK)
	case tar.TypeFifo:
		return node(unix.S_IFIFO)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("an entry of type %q is unknown", h.Typeflag)
	}
}

// attributes come after the content: writing takes setuid bits and file
// capabilities away, and so does a change of owner.
func (u *unpacker) attributes(h *tar.Header, name string) error {
	if h.Typeflag == tar.TypeLink || h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := u.root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir {
		if err := u.extended(h, name); err != nil {
			return err
		}
	}
	if err := u.root.Chmod(name, h.FileInfo().Mode()&(os.ModePerm|os.ModeSetuid|os.ModeSetgid|os.ModeSticky)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg {
		return u.root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return nil
}

func (u *unpacker) extended(h *tar.Header, name string) error {
	for key, value := range h.PAXRecords {
		attribute, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || strings.HasPrefix(attribute, "trusted.overlay.") {
			continue // the last are ours to set
		}
		f, err := u.root.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(f.Fd()), attribute, []byte(value), 0)
		f.Close()
		if err != nil && err != unix.ENOTSUP {
			return fmt.Errorf("set %s: %w", attribute, err)
		}
	}
	return nil
}

// readIn reads a file of an image: that of the uppermost layer that has it.
func readIn(layers []string, name string) ([]byte, error) {
	for i := len(layers) - 1; i >= 0; i-- {
		root, err := os.OpenRoot(layers[i])
		if err != nil {
			return nil, err
		}
		data, err := root.ReadFile(filepath.FromSlash(name))
		root.Close()
		if err == nil {
			return data, nil
		}
	}
	return nil, os.ErrNotExist
}
