package testenv

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Cmd is an exec.Cmd that starts inside a host: in its namespaces and, from
// the first instruction on, in its cgroup. Its process dies with the host.
type Cmd struct {
	*exec.Cmd
	lab  *Lab
	host string
}

// Command prepares a command on the host. Without Dir it runs in the caller's
// working directory, or in / where the host's view has no such folder.
func (l *Lab) Command(host string, argv ...string) *Cmd {
	return l.CommandContext(context.Background(), host, argv...)
}

// CommandContext is Command with an end: the process is killed with ctx.
func (l *Lab) CommandContext(ctx context.Context, host string, argv ...string) *Cmd {
	return &Cmd{exec.CommandContext(ctx, argv[0], argv[1:]...), l, host}
}

// Start starts the command and does not wait for it.
func (c *Cmd) Start() error {
	p, err := c.lab.init(c.host)
	if err != nil {
		return err
	}
	here, _ := os.Getwd() // here: entering the host leads to its root
	return startIn(c.Cmd, c.lab.hostCgroup(c.host), func() error {
		if err := p.enter(hostNamespaces); err != nil {
			return err
		}
		if c.Dir == "" {
			if c.Dir = here; !isDir(here) {
				c.Dir = "/"
			}
		}
		return nil
	})
}

// startIn starts the command in the cgroup, from a thread that prepare has
// moved to where the command belongs: a child inherits the namespaces of the
// thread that forks it.
func startIn(c *exec.Cmd, cgroup string, prepare func() error) error {
	fd, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer fd.Close()
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(fd.Fd())
	return onThread(func() error {
		if err := prepare(); err != nil {
			return err
		}
		return c.Start()
	})
}

// Run starts the command and waits for its end; see exec.Cmd.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output; see exec.Cmd.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the command and returns all that it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var both bytes.Buffer
	c.Stdout, c.Stderr = &both, &both
	err := c.Run()
	return both.Bytes(), err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
