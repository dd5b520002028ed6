package vm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConsoleTellsTheStatusAndTheLastLines(t *testing.T) {
	for _, test := range []struct {
		console, output, last string
		status                int
	}{
		{"boot\r\n=== RUN\r\nPASS\r\n\r\n" + exitMark + "0\r\nbye", "boot\n=== RUN\nPASS\nbye\n", "bye", 0},
		{"FAIL\n" + exitMark + "1\n", "FAIL\n", "FAIL", 1},
		{"panic: no init\n", "panic: no init\n", "panic: no init", -1},
		{exitMark + "x\n", "", "", -1},
		{"", "", "", -1},
	} {
		var output bytes.Buffer
		status, last := readConsole(strings.NewReader(test.console), &output)
		if status != test.status || output.String() != test.output || !strings.HasSuffix(last, test.last) {
			t.Errorf("%q: got status %d, output %q, last %q", test.console, status, output.String(), last)
		}
	}
	if _, last := readConsole(strings.NewReader(strings.Repeat("line\n", 100)+"end\n"), nil); strings.Count(last, "\n") != 29 || !strings.HasSuffix(last, "end") {
		t.Errorf("last lines: %q", last)
	}
}

func TestModprobesFileNamesNothingBeforeWhatItNeeds(t *testing.T) {
	all := []module{ // as closure lists them
		{name: "base", path: "base.ko"}, {name: "left", path: "left.ko", depends: []string{"base"}},
		{name: "right_one", path: "right-one.ko", depends: []string{"base", "left"}},
		{name: "top", path: "top.ko", depends: []string{"right-one"}},
	}
	want := "base.ko:\nleft.ko: base.ko\nright-one.ko: left.ko base.ko\ntop.ko: right-one.ko left.ko base.ko\n"
	if got := dependencyFile(all); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestModulesComeWithWhatTheyNeed(t *testing.T) {
	k, err := findKernel()
	if err != nil {
		t.Skip(err)
	}
	all, err := closure(k.modules, []string{"ip_vs_mh", "dummy", "ip_vs"})
	if err != nil {
		t.Fatal(err)
	}
	place := map[string]int{}
	for i, m := range all {
		for _, d := range m.depends {
			if at, there := place[canonical(d)]; !there || at >= i {
				t.Errorf("%s comes before %s", m.name, d)
			}
		}
		place[m.name] = i
	}
	for _, name := range []string{"ip_vs_mh", "ip_vs", "nf_conntrack", "dummy"} {
		if _, there := place[name]; !there {
			t.Errorf("%s is missing", name)
		}
	}
	if _, err := closure(k.modules, []string{"no_such"}); err == nil || !strings.Contains(err.Error(), "no module no_such") {
		t.Errorf("a module that is not there: got %v", err)
	}
}

func TestArchiveIsReadByOthers(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "from")
	if err := os.WriteFile(from, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a := &archive{w: &b}
	a.dirs("a/b")
	a.dirs("a/c")
	a.file("a/b/text", "x")
	a.copy("a/c/copy", from)
	a.link("a/link", "b/text")
	a.end()
	if a.err != nil {
		t.Fatal(a.err)
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip(err)
	}
	unpack := exec.Command(busybox, "cpio", "-idm")
	unpack.Dir, unpack.Stdin = t.TempDir(), &b
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v %s", err, out)
	}
	for name, want := range map[string]string{"a/b/text": "x", "a/c/copy": "12345", "a/link": "x"} {
		if got, err := os.ReadFile(filepath.Join(unpack.Dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	a = &archive{w: &b}
	a.copy("x", filepath.Join(dir, "missing"))
	a.file("y", "")
	if !errors.Is(a.err, os.ErrNotExist) {
		t.Errorf("a missing file: got %v", a.err)
	}
}

func TestArgumentsAreQuoted(t *testing.T) {
	args := []string{"-test.run", "^Test It's$", "$HOME `x`", ""}
	out, err := exec.Command("sh", "-c", "printf '%s|' "+quote(args)).Output()
	if want := strings.Join(args, "|") + "|"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func TestRunEndsWithItsTimeOut(t *testing.T) {
	Need(t)
	dir := t.TempDir()
	o := Options{Test: filepath.Join(dir, "test"), Timeout: time.Second}
	if err := os.WriteFile(o.Test, []byte("#!/bin/busybox sh\nsleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "run in the VM: context deadline exceeded") {
		t.Errorf("got %v", err)
	}
	if _, err := Run(t.Context(), Options{Test: o.Test, Modules: []string{"no_such"}}); err == nil {
		t.Error("a module that is not there was no error")
	}
}
