package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// AgentBinaryName is the agent's program.
const AgentBinaryName = "weir-agent"

// FindAgent looks for weir-agent in dir, beside the running program, and in
// $PATH, in this order; an empty dir is passed over.
func FindAgent(dir string) (string, error) { return find(dir, AgentBinaryName) }

// FindController does the same for weir-controller.
func FindController(dir string) (string, error) { return find(dir, ControllerBinaryName) }

func find(dir, name string) (string, error) {
	if dir != "" {
		return exec.LookPath(filepath.Join(dir, name))
	}
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s beside this program or in $PATH: %w", name, err)
	}
	return filepath.Abs(path)
}

// startAgent starts the host's agent and does not wait until it is ready.
func (l *Lab) startAgent(host string) error {
	cmd := l.Command(host, l.Spec.AgentBinary)
	cmd.Env = agentEnvironment(os.Environ())
	cmd.Dir = "/"
	return l.background(cmd, l.LogFile(host, "agent"), l.disk(host, "agent.pid"))
}

// agentEnvironment leaves out what would configure the lab's agents from the
// caller's shell, or have them report to the caller's systemd unit.
func agentEnvironment(environment []string) []string {
	var kept []string
	for _, e := range environment {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "WEIR_") && !strings.HasPrefix(name, "WATCHDOG_") && name != "NOTIFY_SOCKET" {
			kept = append(kept, e)
		}
	}
	return kept
}

// background starts the command in a session of its own, with its output
// appended to the log, and records its process in pidFile.
func (l *Lab) background(cmd *Cmd, logFile, pidFile string) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s on host %s: %w", cmd.Path, cmd.host, err)
	}
	return l.adopt(cmd.Cmd, pidFile)
}

// agent is the host's agent; it may have ended.
func (l *Lab) agent(host string) (process, error) {
	if h, err := l.host(host); err != nil {
		return process{}, err
	} else if !h.RunsAgent() {
		return process{}, fmt.Errorf("host %s runs no agent", host)
	}
	p, err := readProcess(l.disk(host, "agent.pid"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if !inCgroup(l.hostCgroup(host), p.pid) {
		p = process{}
	}
	return p, err
}

// AgentSocket is the path, valid outside of the host, of the agent's local API.
func (l *Lab) AgentSocket(host string) (string, error) {
	p, err := l.init(host)
	return fmt.Sprintf("/proc/%d/root/run/weir/agent.sock", p.pid), err
}

// AgentClient speaks to the agent's local API; any http URL reaches it.
func (l *Lab) AgentClient(host string) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		socket, err := l.AgentSocket(host)
		if err != nil {
			return nil, err
		}
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 2 * time.Second}
}

// ready tells whether the agent says that it has applied its state.
func (l *Lab) ready(ctx context.Context, host string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/readyz", nil)
	if err != nil {
		return err
	}
	response, err := l.AgentClient(host).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(body))
	}
	return nil
}

// waitReady returns when the agent is ready. An agent that ends first, or is
// not ready in time, is an error that quotes the last lines of its log.
func (l *Lab) waitReady(ctx context.Context, host string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var last error
	for {
		err := l.ready(ctx, host)
		if err == nil {
			return nil
		}
		// What the agent said last tells more than that our own time ran out
		// in the middle of the next question.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		p, _ := l.agent(host)
		if !p.alive() {
			return fmt.Errorf("the agent of host %s has ended; its last lines:\n%s", host, l.lastLines(host, "agent"))
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("the agent of host %s is not ready after %s (%w); its last lines:\n%s", host, wait, last, l.lastLines(host, "agent"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastLines quotes the end of the log of the agent or the controller.
func (l *Lab) lastLines(host, name string) string {
	data, _ := os.ReadFile(l.LogFile(host, name))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  " + strings.Join(lines[max(len(lines)-15, 0):], "\n  ")
}
