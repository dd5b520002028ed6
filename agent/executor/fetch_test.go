package executor

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

func tarball(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range files {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, target, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(content))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func zipped(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte(content))
	w.Close()
	return b.Bytes()
}

func testFetcher(t *testing.T) (*Supervisor, string) {
	t.Helper()
	s, err := New(Options{DataDir: t.TempDir(), RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s, t.TempDir()
}

var self = shim.User{UID: os.Getuid(), GID: os.Getgid()}

func TestFilesAreFetchedCheckedAndUnpacked(t *testing.T) {
	content := map[string][]byte{
		"/tool": []byte("tool"), "/app.tgz": tarball(t, map[string]string{"bin/app": "app", "lib": "-> bin"}), "/site.zip": zipped(t, "www/index.html", "hello"),
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable) // it is tried again
			return
		}
		_, _ = w.Write(content[r.URL.Path])
	}))
	defer server.Close()
	s, sandbox := testFetcher(t)
	sum := sha256.Sum256(content["/tool"])
	local := filepath.Join(t.TempDir(), "local.txt")
	if err := os.WriteFile(local, []byte("local"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []api.Fetch{
		{URI: server.URL + "/tool?x=y", SHA256: hex.EncodeToString(sum[:]), Executable: true, Cache: true},
		{URI: server.URL + "/app.tgz", Extract: true}, {URI: server.URL + "/site.zip", Extract: true, Path: "web/site.zip"},
		{URI: server.URL + "/app.tgz", Path: "kept.tgz"}, {URI: "file://" + local}, {URI: local, Path: "deep/er/name"},
	} {
		if err := s.fetch(context.Background(), sandbox, f, self); err != nil {
			t.Errorf("fetch %+v: %v", f, err)
		}
	}
	for name, want := range map[string]string{
		"tool": "tool", "bin/app": "app", "lib/app": "app", "web/www/index.html": "hello", "kept.tgz": string(content["/app.tgz"]), "local.txt": "local", "deep/er/name": "local",
	} {
		if got, err := os.ReadFile(filepath.Join(sandbox, name)); err != nil || string(got) != want {
			t.Errorf("%s is %.20q (%v), want %.20q", name, got, err, want)
		}
	}
	if info, err := os.Stat(sandbox + "/tool"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("tool: %v %v", info, err)
	}
	before := asked.Load()
	if err := s.fetch(context.Background(), sandbox, api.Fetch{URI: server.URL + "/tool?x=y", SHA256: hex.EncodeToString(sum[:]), Cache: true}, self); err != nil || asked.Load() != before {
		t.Errorf("the cached file was asked for %d times (%v)", asked.Load()-before, err)
	}
}

func TestNothingIsFetchedOutOfTheSandbox(t *testing.T) {
	outside := t.TempDir()
	content := map[string][]byte{
		"/up.tgz":     tarball(t, map[string]string{"../up": "x"}),
		"/link.tgz":   tarball(t, map[string]string{"out": "-> " + outside}),
		"/good":       []byte("good"),
		"/up.zip":     zipped(t, "../../up", "x"),
		"/absent.tgz": nil,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if content[r.URL.Path] == nil {
			http.NotFound(w, r)
		}
		_, _ = w.Write(content[r.URL.Path])
	}))
	defer server.Close()
	s, sandbox := testFetcher(t)
	if err := s.fetch(context.Background(), sandbox, api.Fetch{URI: server.URL + "/link.tgz", Extract: true}, self); err != nil {
		t.Fatal(err) // a link alone does no harm
	}
	for want, f := range map[string]api.Fetch{
		"not below the sandbox": {URI: server.URL + "/good", Path: "../x"},
		"is not below":          {URI: server.URL + "/up.tgz", Extract: true},
		"is not below the":      {URI: server.URL + "/up.zip", Extract: true},
		"escapes":               {URI: server.URL + "/good", Path: "out/x"},
		"sha256 is":             {URI: server.URL + "/good", SHA256: strings.Repeat("0", 64)},
		"404":                   {URI: server.URL + "/absent.tgz"},
		"none of file":          {URI: "ftp://host/x"},
		"no such file":          {URI: "/no/such/file"},
	} {
		if err := s.fetch(context.Background(), sandbox, f, self); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("fetch %+v: %v, want %q", f, err, want)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("%v was written outside", left)
	}
}

func TestPasswordsOfURIsAreNotShown(t *testing.T) {
	if got := withoutPassword("https://ann:secret@host/x?token=abc"); strings.Contains(got, "secret") || strings.Contains(got, "abc") {
		t.Errorf("got %s", got)
	}
}

func TestLogsAreFollowedOverRotations(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/stdout"
	ended := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := &tail{ctx: ctx, path: path, ended: func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}}
	defer log.Close()
	if err := os.WriteFile(path, []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4)
	if _, err := io.ReadFull(log, first); err != nil || string(first) != "one\n" {
		t.Fatalf("read %q (%v)", first, err)
	}
	go func() {
		f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		_, _ = f.WriteString("two\n")
		f.Close()
		_ = os.Rename(path, path+".1")
		_ = os.WriteFile(path, []byte("three\n"), 0o644)
		time.Sleep(300 * time.Millisecond)
		close(ended)
	}()
	var b bytes.Buffer
	if _, err := b.ReadFrom(log); err != nil || b.String() != "two\nthree\n" {
		t.Errorf("read %q (%v)", b.String(), err)
	}
}

func TestOldSandboxesAreRemoved(t *testing.T) {
	s, _ := testFetcher(t)
	for _, id := range []string{"old", "new", "alive"} {
		if err := os.MkdirAll(s.sandbox(id), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-25 * time.Hour)
	for _, id := range []string{"old", "alive"} {
		if err := os.Chtimes(s.sandbox(id), past, past); err != nil {
			t.Fatal(err)
		}
	}
	s.tasks["alive"] = s.newTask(record{Spec: api.TaskSpec{ID: "alive"}})
	s.collectOnce(time.Now())
	for id, want := range map[string]bool{"old": false, "new": true, "alive": true} {
		if _, err := os.Stat(s.sandbox(id)); (err == nil) != want && !nearlyFull(s.options.DataDir) {
			t.Errorf("sandbox %s: %v", id, err)
		}
	}
}

func TestHostNamesAreLabels(t *testing.T) {
	for id, want := range map[string]string{
		"web.1": "web-1", "shop_Web.instance-8f._app.1": "shop-web-instance-8f--app-1", strings.Repeat("x", 80) + "_": strings.Repeat("x", 62),
	} {
		if got := hostName(id); got != want {
			t.Errorf("host name of %s is %s, want %s", id, got, want)
		}
	}
}
