package executor

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/weirproject/weir/agent/executor/shim"
)

// archiveKinds by the ends of names.
var archiveKinds = map[string]string{
	".tar": "tar", ".tar.gz": "gzip", ".tgz": "gzip", ".tar.bz2": "bzip2", ".tbz2": "bzip2", ".tar.zst": "zstd", ".zip": "zip",
}

// archiveKind is empty for what is no archive that we know: it is copied.
func archiveKind(name string) string {
	for end, kind := range archiveKinds {
		if strings.HasSuffix(strings.ToLower(name), end) {
			return kind
		}
	}
	return ""
}

// extract unpacks an archive below a folder of root, which nothing in it leaves.
func extract(root *os.Root, source, kind, below string, owner shim.User) error {
	if kind == "zip" {
		return extractZip(root, source, below, owner)
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	switch kind {
	case "gzip":
		if in, err = gzip.NewReader(f); err != nil {
			return err
		}
	case "bzip2":
		in = bzip2.NewReader(f)
	case "zstd":
		z, err := zstd.NewReader(f)
		if err != nil {
			return err
		}
		defer z.Close()
		in = z
	}
	return extractTar(root, tar.NewReader(in), below, owner)
}

func extractTar(root *os.Root, in *tar.Reader, below string, owner shim.User) error {
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := inside(below, h.Name)
		if err != nil {
			return err
		}
		mode := h.FileInfo().Mode().Perm()
		switch h.Typeflag {
		case tar.TypeDir:
			err = makeDir(root, name, mode|0o700, owner)
		case tar.TypeReg:
			err = makeFile(root, in, name, mode, owner)
		case tar.TypeSymlink:
			_ = root.Remove(name)
			if err = root.Symlink(h.Linkname, name); err == nil {
				err = root.Lchown(name, owner.UID, owner.GID)
			}
		case tar.TypeLink:
			var old string
			if old, err = inside(below, h.Linkname); err == nil {
				_ = root.Remove(name)
				err = root.Link(old, name)
			}
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func extractZip(root *os.Root, source, below string, owner shim.User) error {
	archive, err := zip.OpenReader(source)
	if err != nil {
		return err
	}
	defer archive.Close()
	for _, f := range archive.File {
		name, err := inside(below, f.Name)
		if err != nil {
			return err
		}
		if f.FileInfo().IsDir() {
			err = makeDir(root, name, f.Mode().Perm()|0o700, owner)
		} else if f.Mode().IsRegular() {
			err = unzip(root, f, name, owner)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
	}
	return nil
}

func unzip(root *os.Root, f *zip.File, name string, owner shim.User) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	return makeFile(root, in, name, f.Mode().Perm(), owner)
}

func makeFile(root *os.Root, in io.Reader, name string, mode os.FileMode, owner shim.User) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return writeInto(root, in, name, mode, owner)
}

func makeDir(root *os.Root, name string, mode os.FileMode, owner shim.User) error {
	if err := root.MkdirAll(name, mode); err != nil {
		return err
	}
	return root.Chown(name, owner.UID, owner.GID)
}

// inside is a name of an archive, below a folder.
func inside(below, name string) (string, error) {
	clean := filepath.Join(below, strings.TrimSuffix(name, "/"))
	if !filepath.IsLocal(clean) || !filepath.IsLocal(filepath.Clean(name)) {
		return "", fmt.Errorf("unpack %s: it is not below the sandbox", name)
	}
	return clean, nil
}
