package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Detach runs the command on the host in the background, in a session of its
// own; its output is appended to LogFile(host, name). It dies with the host. A
// name serves again when its command has ended; agent is taken.
func (l *Lab) Detach(ctx context.Context, host, name string, argv ...string) error {
	if !nameSyntax.MatchString(name) {
		return fmt.Errorf("name of the command %q %s", name, nameRule)
	}
	if name == "agent" || name == "controller" {
		return fmt.Errorf("the name %s belongs to the host's %s", name, name)
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.init(host); err != nil {
		return err
	}
	pidFile := l.disk(host, name+detachedSuffix)
	if p, err := readProcess(pidFile); err == nil && p.alive() {
		return fmt.Errorf("%s runs already on host %s as process %d", name, host, p.pid)
	}
	cmd := l.Command(host, argv...)
	return l.background(cmd, l.LogFile(host, name), pidFile)
}

// detachedSuffix ends the files that record detached commands.
const detachedSuffix = ".run.pid"

// Detached is a command that Detach started.
type Detached struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Running is false when it has ended.
	Running bool `json:"running"`
}

// detached lists the host's, sorted by name.
func (l *Lab) detached(host string) []Detached {
	files, _ := filepath.Glob(l.disk(host, "*"+detachedSuffix))
	slices.Sort(files)
	var all []Detached
	for _, file := range files {
		if p, err := readProcess(file); err == nil {
			name := strings.TrimSuffix(filepath.Base(file), detachedSuffix)
			all = append(all, Detached{Name: name, PID: p.pid, Running: p.alive()})
		}
	}
	return all
}

// Logs lists the names under which the host has logs: agent first, then the
// detached commands.
func (l *Lab) Logs(host string) []string {
	var names []string
	if _, err := os.Stat(l.LogFile(host, "agent")); err == nil {
		names = append(names, "agent")
	}
	for _, d := range l.detached(host) {
		names = append(names, d.Name)
	}
	return names
}
