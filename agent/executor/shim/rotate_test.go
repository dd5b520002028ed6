package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestLogsTakeNoMoreRoomThanTheyMay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stdout")
	log, err := openLog(path, User{UID: os.Getuid(), GID: os.Getgid()}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		fmt.Fprintf(log, "line %4d\n", i)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != keepLogs {
		t.Fatalf("got files %v (%v), want %d", files, err, keepLogs)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 100 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text[len(text)-10:]) != "line  999\n" {
		t.Errorf("the newest file ends with %q (%v)", text, err)
	}
}

func TestLinksInThePlaceOfLogsAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]func(string, string) error{"symbolic": os.Symlink, "hard": os.Link} {
		path := filepath.Join(dir, name)
		if err := link(precious, path); err != nil {
			t.Fatal(err)
		}
		if _, err := openLog(path, User{UID: os.Getuid(), GID: os.Getgid()}, 100); err == nil {
			t.Errorf("a %s link is followed", name)
		}
	}
}
