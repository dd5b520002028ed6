package controllerbench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/controller"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/members"
)

// roleVariable makes a process the measured controller: a folder, or "memory".
const roleVariable = "WEIR_CONTROLLERBENCH"

// greeting is the line that the controller's process writes when it is ready.
type greeting struct {
	URL, Operator, Agent string
}

// Main is the measured controller, in a process that Run has started; in any
// other it returns at once.
func Main() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	err := serve(ctx, role)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(ctx context.Context, role string) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	o := members.Options{Name: "c1", DataDir: role, URL: "https://" + l.Addr().String(), Peer: "https://" + peer.Addr().String(), Log: log}
	o.PeerListen = o.Peer
	_ = peer.Close() // its port is free for the store now
	open := members.OpenInMemory
	if role != "memory" {
		if _, err := members.Init(o); err != nil {
			return err
		}
		open = members.Open
	}
	m, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	hello := greeting{URL: o.URL}
	for kind, token := range map[auth.Role]*string{auth.RoleOperator: &hello.Operator, auth.RoleAgent: &hello.Agent} {
		made, err := m.Door.CreateToken(ctx, auth.TokenRequest{Role: kind})
		if err != nil {
			return err
		}
		*token = made.Secret
	}
	c, err := controller.New(controller.Options{
		Member: m, Listener: l, Version: "bench", Range: controller.DefaultRange, Range6: controller.DefaultRange6,
		Names: controller.DefaultNames(), Log: log,
	})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(hello); err != nil {
		return err
	}
	return c.Run(ctx)
}

// process is the measured controller.
type process struct {
	cmd   *exec.Cmd
	dir   string
	hello greeting
	login client.ClusterOptions
}

func startController(ctx context.Context, memory bool) (*process, error) {
	p := &process{}
	role := "memory"
	if !memory {
		var err error
		if p.dir, err = tempDir(); err != nil {
			return nil, err
		}
		role = p.dir
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the controller: %w", err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.hello)
	}
	if err == nil {
		p.login, _, err = client.Login(ctx, []string{p.hello.URL}, p.hello.Operator)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start the controller: %w", err)
	}
	return p, nil
}

// stopWithin is how long the controller may take to end.
const stopWithin = 10 * time.Second

func (p *process) stop() {
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	late := time.AfterFunc(stopWithin, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	late.Stop()
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

// cpu is what the process has used so far.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("read the controller's CPU time: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("read the controller's CPU time: /proc says something else")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err // USER_HZ is 100 everywhere
}

// coresWhile is how many cores the process used while do ran.
func (p *process) coresWhile(do func() error) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := p.cpu()
	return (after - before).Seconds() / took.Seconds(), err
}

func (p *process) cores(ctx context.Context, d time.Duration) (float64, error) {
	return p.coresWhile(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	})
}

// memory is the most that the process has held, in bytes.
func (p *process) memory() (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("read the controller's memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("read the controller's memory: /proc does not say")
}
