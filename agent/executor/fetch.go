package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

const (
	fetchTries = 3
	fetchPause = 500 * time.Millisecond
)

func (s *Supervisor) cacheDir() string { return filepath.Join(s.options.DataDir, "fetched") }

// fetch brings one file into a sandbox. It is written aside and put in place
// when it is whole and its checksum is right.
func (s *Supervisor) fetch(ctx context.Context, sandbox string, f api.Fetch, owner shim.User) error {
	name := f.Path
	if name == "" {
		u, err := url.Parse(f.URI)
		if err != nil {
			return errors.New("it is no URI")
		}
		name = path.Base(u.Path)
	}
	if !filepath.IsLocal(name) || name == "." {
		return fmt.Errorf("path %q is not below the sandbox", name)
	}
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	source, remove, err := s.fetched(ctx, f)
	if err != nil {
		return err
	}
	defer remove()
	if f.Extract {
		if kind := archiveKind(name); kind != "" {
			return extract(root, source, kind, filepath.Dir(name), owner)
		}
	}
	mode := os.FileMode(0o644)
	if f.Executable {
		mode = 0o755
	}
	return copyInto(root, source, name, mode, owner)
}

// fetched returns the file on this node, and what to call when it was used.
func (s *Supervisor) fetched(ctx context.Context, f api.Fetch) (string, func(), error) {
	keep := func() {}
	u, err := url.Parse(f.URI)
	if err != nil {
		return "", nil, errors.New("it is no URI")
	}
	switch u.Scheme {
	case "", "file":
		return u.Path, keep, checkSum(u.Path, f.SHA256)
	case "http", "https":
	default:
		return "", nil, fmt.Errorf("scheme %q is none of file, http and https", u.Scheme)
	}
	if err := os.MkdirAll(s.cacheDir(), 0o700); err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(f.URI + " " + f.SHA256))
	cached := filepath.Join(s.cacheDir(), hex.EncodeToString(sum[:]))
	if f.Cache && checkSum(cached, f.SHA256) == nil {
		now := time.Now()
		_ = os.Chtimes(cached, now, now) // it is of use: it is removed later
		return cached, keep, nil
	}
	aside, err := s.download(ctx, f.URI)
	if err != nil {
		return "", nil, err
	}
	if err := checkSum(aside, f.SHA256); err != nil {
		os.Remove(aside)
		return "", nil, err
	}
	if f.Cache {
		return cached, keep, os.Rename(aside, cached)
	}
	return aside, func() { os.Remove(aside) }, nil
}

// download tries again what may go well another time.
func (s *Supervisor) download(ctx context.Context, uri string) (string, error) {
	for try := 1; ; try++ {
		file, again, err := s.downloadOnce(ctx, uri)
		if err == nil || !again || try == fetchTries {
			return file, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(fetchPause):
		}
	}
}

func (s *Supervisor) downloadOnce(ctx context.Context, uri string) (file string, again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return "", false, errors.New("it is no URI")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		var inside *url.Error // its text repeats the URI, password included
		if errors.As(err, &inside) {
			err = inside.Err
		}
		return "", true, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", response.StatusCode >= 500, fmt.Errorf("the server answered %s", response.Status)
	}
	f, err := os.CreateTemp(s.cacheDir(), ".fetch-*")
	if err != nil {
		return "", false, err
	}
	_, err = io.Copy(f, response.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", true, err
	}
	return f.Name(), false, nil
}

// checkSum compares a file with a checksum in hex; an empty one is that of
// every file that is there.
func checkSum(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if want == "" {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, want) {
		return fmt.Errorf("sha256 is %s, want %s", got, want)
	}
	return nil
}

// copyInto puts a file into the sandbox.
func copyInto(root *os.Root, source, name string, mode os.FileMode, owner shim.User) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeInto(root, in, name, mode, owner)
}

func writeInto(root *os.Root, in io.Reader, name string, mode os.FileMode, owner shim.User) error {
	_ = root.Remove(name)
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Chown(owner.UID, owner.GID), out.Close())
}

// withoutPassword is a URI for people to read.
func withoutPassword(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return uri
	}
	u.RawQuery = ""
	return u.Redacted()
}
