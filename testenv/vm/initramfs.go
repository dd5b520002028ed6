package vm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// insideVariable is set in the environment of a test in a VM.
const insideVariable = "WEIR_TEST_VM"

// initScript is process 1. The kernel panics when it ends, so it powers off.
const initScript = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp %s=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /tmp
ip link set lo up
for m in %s; do modprobe $m || echo "modprobe $m failed"; done
cd /tmp
/test %s
status=$?
echo
echo "%s$status"
poweroff -f
`

// writeInitramfs writes the archive: busybox, modules, the test and init.
func writeInitramfs(path string, k kernel, o Options) error {
	modules, err := closure(k.modules, append(append([]string{}, o.Modules...), o.Loadable...))
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := bufio.NewWriterSize(f, 1<<20)
	a := &archive{w: buffer}
	base := "lib/modules/" + filepath.Base(k.modules)
	for _, dir := range []string{"bin", "sbin", "proc", "sys", "dev", "tmp", "etc", "run", "var", "var/lib"} {
		a.dir(dir)
	}
	a.copy("bin/busybox", busybox)
	a.link("sbin/modprobe", "/bin/busybox") // where the kernel looks for it
	a.dirs(base)
	for _, m := range modules {
		a.dirs(filepath.Dir(filepath.Join(base, m.path)))
		a.copy(filepath.Join(base, m.path), filepath.Join(k.modules, m.path))
	}
	a.file(base+"/modules.dep", dependencyFile(modules))
	a.copy("test", o.Test)
	a.file("init", fmt.Sprintf(initScript, insideVariable, strings.Join(o.Modules, " "), quote(o.Args), exitMark))
	a.end()
	if a.err != nil {
		return a.err
	}
	if err := buffer.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// quote writes the arguments for the shell.
func quote(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// archive writes the cpio format that the kernel reads ("newc"). After an
// error it does nothing more.
type archive struct {
	w    io.Writer
	err  error
	made map[string]bool // folders
}

func (a *archive) dir(name string) { a.entry(name, 0o040755, 0, strings.NewReader("")) }

// dirs makes the folder and those above it, each once.
func (a *archive) dirs(name string) {
	if name == "." || a.made[name] {
		return
	}
	if a.made == nil {
		a.made = map[string]bool{}
	}
	a.dirs(filepath.Dir(name))
	a.made[name] = true
	a.dir(name)
}

func (a *archive) file(name, content string) {
	a.entry(name, 0o100755, int64(len(content)), strings.NewReader(content))
}

func (a *archive) link(name, target string) {
	a.entry(name, 0o120777, int64(len(target)), strings.NewReader(target))
}

func (a *archive) copy(name, from string) {
	if a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.entry(name, 0o100755, info.Size(), f)
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, 0, strings.NewReader("")) }

// entry writes one: a header of hexadecimal numbers, the name and the content,
// both padded to four bytes. The inode number is not used without hard links.
func (a *archive) entry(name string, mode uint32, size int64, content io.Reader) {
	if a.err != nil {
		return
	}
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if _, a.err = io.WriteString(a.w, head+padding(int64(len(head)))); a.err != nil {
		return
	}
	if _, a.err = io.CopyN(a.w, content, size); a.err != nil {
		a.err = fmt.Errorf("add %s: %w", name, a.err)
		return
	}
	_, a.err = io.WriteString(a.w, padding(size))
}

func padding(size int64) string { return "\x00\x00\x00"[:(4-size%4)%4] }
