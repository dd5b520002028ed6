package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weirproject/weir/api"
)

// maxBody is how much of an answer is read, in bytes.
const maxBody = 64 << 10

// prober makes single checks.
type prober struct {
	transport *http.Transport
}

// newProber opens a connection per check, so that a check sees what a new
// client would see, and goes to the backend itself whatever proxies the
// environment names.
func newProber() *prober {
	return &prober{&http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxBody}}
}

// probe makes one check within its time-out; nil means that it passed.
func (p *prober) probe(ctx context.Context, t Target) error {
	timeout := t.Check.Timeout.Std()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch {
	case t.Check.HTTP != nil:
		err = p.probeHTTP(ctx, *t.Check.HTTP, t.Backend)
	case t.Check.TCP != nil:
		err = probeTCP(ctx, withPort(t.Backend, t.Check.TCP.Port))
	default:
		err = probeExec(ctx, t.Check.Exec.Command, t.Backend)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	return err
}

func withPort(backend netip.AddrPort, port uint16) netip.AddrPort {
	if port == 0 {
		return backend
	}
	return netip.AddrPortFrom(backend.Addr(), port)
}

func (p *prober) probeHTTP(ctx context.Context, check api.HTTPCheck, backend netip.AddrPort) error {
	path := check.Path
	if path == "" {
		path = "/"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+withPort(backend, check.Port).String()+path, nil)
	if err != nil {
		return err
	}
	if check.Host != "" {
		request.Host = check.Host
	}
	request.Header.Set("User-Agent", "weir-health")
	// RoundTrip follows no redirect: a redirect is an answer.
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	// Closing a connection with unread data resets it, which servers log.
	_, _ = io.CopyN(io.Discard, response.Body, maxBody)
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %s", path, response.Status)
	}
	return nil
}

func probeTCP(ctx context.Context, address netip.AddrPort) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return err
	}
	// A reset leaves no TIME_WAIT behind on this node.
	_ = conn.(*net.TCPConn).SetLinger(0)
	return conn.Close()
}

func probeExec(ctx context.Context, command []string, backend netip.AddrPort) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"WEIR_BACKEND_ADDRESS=" + backend.Addr().String(),
		"WEIR_BACKEND_PORT=" + strconv.Itoa(int(backend.Port())),
	}
	// The whole process group goes at the time-out, children included.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	// A child that left the group may hold our end of its output for ever.
	cmd.WaitDelay = 100 * time.Millisecond
	out := &firstLine{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) { // that one exited with 0
		return nil
	}
	if said := out.String(); said != "" {
		return fmt.Errorf("%s: %w: %s", command[0], err, said)
	}
	return fmt.Errorf("%s: %w", command[0], err)
}

// firstLine keeps the first line written to it, 200 bytes at most, and drops
// the rest.
type firstLine struct {
	line  []byte
	ended bool
}

func (f *firstLine) Write(b []byte) (int, error) {
	if !f.ended {
		line, _, ended := bytes.Cut(b, []byte("\n"))
		f.line = append(f.line, line[:min(len(line), 200-len(f.line))]...)
		f.ended = ended
	}
	return len(b), nil
}

func (f *firstLine) String() string { return strings.ToValidUTF8(string(f.line), "?") }
