package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ErrNotUp is wrapped by errors about a lab that is not there.
var ErrNotUp = errors.New("is not up")

// Options of Up.
type Options struct {
	// File describes the lab.
	File string
	// Name replaces the name in the file; empty keeps it.
	Name string
	// AgentBinary is the path of weir-agent; needed when a host runs it.
	AgentBinary string
	// ControllerBinary is the path of weir-controller; needed when a host runs it.
	ControllerBinary string
	// Wait for each agent to be ready; 0 means 30 s.
	Wait time.Duration
	// Root holds one folder per lab; empty means DefaultRoot. Labs of
	// different roots do not see each other; the last part of its path names
	// the cgroup above theirs, so that it must be a root's own.
	Root string
	// Log takes what happens; nil discards it.
	Log *slog.Logger
}

// Lab is a lab that is up, or was when it was opened. It holds no resource:
// any number of processes may use a lab at once.
type Lab struct {
	// Spec is the lab as it was brought up. Read only.
	Spec Spec
	place
	log *slog.Logger
}

// Up brings the lab up and returns when its agents are ready. When that fails,
// nothing is left behind.
func Up(ctx context.Context, o Options) (*Lab, error) {
	spec, err := ReadFile(o.File)
	if err != nil {
		return nil, err
	}
	if o.Name != "" {
		spec.Name = o.Name
	}
	if slices.ContainsFunc(spec.Hosts, Host.RunsAgent) {
		if o.AgentBinary == "" {
			return nil, fmt.Errorf("lab %q runs agents: give the path of %s", spec.Name, AgentBinaryName)
		}
		if spec.AgentBinary, err = filepath.Abs(o.AgentBinary); err != nil {
			return nil, err
		}
	}
	if spec.Joined() {
		if o.ControllerBinary == "" {
			return nil, fmt.Errorf("lab %q runs controllers: give the path of %s", spec.Name, ControllerBinaryName)
		}
		if spec.ControllerBinary, err = filepath.Abs(o.ControllerBinary); err != nil {
			return nil, err
		}
	}
	p, err := newPlace(o.Root, spec.Name)
	if err != nil {
		return nil, err
	}
	if err = p.create(); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("lab %q is already up: run weir-lab down %s first", spec.Name, spec.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("make the lab's folder: %w", err)
	}
	l := &Lab{Spec: spec, place: p, log: o.Log}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	if err := l.up(ctx, o.Wait); err != nil {
		// Also after ^C: what was begun is taken down.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("bring lab %q up: %w", spec.Name, err), p.remove(cleanup))
	}
	return l, nil
}

// up builds the lab from the wires outward.
func (l *Lab) up(ctx context.Context, wait time.Duration) error {
	if err := os.Mkdir(l.file("logs"), 0o755); err != nil {
		return err
	}
	if err := writeJSON(l.file("lab.json"), l.Spec); err != nil {
		return err
	}
	if err := l.layWires(); err != nil {
		return err
	}
	for index, h := range l.Spec.Hosts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.boot(ctx, index); err != nil {
			return fmt.Errorf("boot host %s: %w", h.Name, err)
		}
		l.log.Info("host up", "host", h.Name, "addresses", h.Addresses())
	}
	if l.Spec.Joined() {
		if err := l.startControllers(ctx, wait); err != nil {
			return err
		}
		if err := l.joinAgents(ctx); err != nil {
			return err
		}
	}
	for _, h := range l.Spec.Hosts {
		if h.RunsAgent() {
			if err := l.startAgent(h.Name); err != nil {
				return err
			}
		}
	}
	for _, h := range l.Spec.Hosts {
		if h.RunsAgent() {
			if err := l.waitReady(ctx, h.Name, wait); err != nil {
				return err
			}
			l.log.Info("agent ready", "host", h.Name)
		}
	}
	if l.Spec.Joined() {
		return l.applyState(ctx, wait)
	}
	return nil
}

// Open finds a lab that is up. The error wraps ErrNotUp when there is none of
// that name.
func Open(root, name string) (*Lab, error) {
	p, err := newPlace(root, name)
	if err != nil {
		return nil, err
	}
	if !p.exists() {
		return nil, fmt.Errorf("lab %q %w", name, ErrNotUp)
	}
	data, err := os.ReadFile(p.file("lab.json"))
	if err != nil {
		return nil, fmt.Errorf("lab %q is incomplete, run weir-lab down %s: %w", name, name, err)
	}
	l := &Lab{place: p, log: slog.New(slog.DiscardHandler)}
	if err := json.Unmarshal(data, &l.Spec); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.file("lab.json"), err)
	}
	return l, nil
}

// Names lists the labs below root (empty: DefaultRoot), sorted; also those that
// a crashed Up left incomplete.
func Names(root string) ([]string, error) {
	all, err := places(root)
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	return names, err
}

// host finds a host by name.
func (l *Lab) host(name string) (Host, error) {
	i := l.index(name)
	if i < 0 {
		var names []string
		for _, h := range l.Spec.Hosts {
			names = append(names, h.Name)
		}
		return Host{}, fmt.Errorf("lab %q has no host %q; its hosts are %v", l.Spec.Name, name, names)
	}
	return l.Spec.Hosts[i], nil
}

func (l *Lab) index(host string) int {
	return slices.IndexFunc(l.Spec.Hosts, func(h Host) bool { return h.Name == host })
}

// LogFile is where the output of the host's agent, or of a detached command of
// that name, goes.
func (l *Lab) LogFile(host, name string) string {
	return l.file("logs", host+"."+name+".log")
}
