package executor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weirproject/weir/agent/health"
	"github.com/weirproject/weir/api"
)

const (
	defaultTimeout = 20 * time.Second // Marathon's
	maxOutput      = 4 << 10          // bytes of a command's output that are read
)

// probe makes a check once.
func (t *task) probe(ctx context.Context, c api.TaskCheck) error {
	timeout := c.Timeout.Std()
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := t.probeKind(ctx, c, timeout)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", timeout)
	}
	return err
}

func (t *task) probeKind(ctx context.Context, c api.TaskCheck, timeout time.Duration) error {
	netns := ""
	if c.Inside {
		netns = t.launch.Netns
	}
	address := netip.AddrPortFrom(t.address(c), c.Port)
	check := api.HealthCheck{Timeout: api.Duration(timeout)}
	switch c.Kind {
	case "http", "https":
		return probeHTTP(ctx, c, netns, address)
	case "tcp":
		check.TCP = &api.TCPCheck{}
	case "grpc":
		check.GRPC = &api.GRPCCheck{Service: strings.TrimPrefix(c.Path, "/")}
	case "command":
		return t.probeCommand(ctx, c.Command)
	default:
		return fmt.Errorf("there is no kind %q of checks", c.Kind)
	}
	return inNetns(netns, func() error { return health.Once(ctx, check, address) })
}

// address where the task is asked: from inside it is loopback, otherwise its
// own address, or the node's where it has none.
func (t *task) address(c api.TaskCheck) netip.Addr {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if c.IPv6 {
		loopback = netip.IPv6Loopback()
	}
	if c.Inside {
		return loopback
	}
	t.mu.Lock()
	own := t.record.Status.Addresses
	t.mu.Unlock()
	for _, a := range own {
		if a.Is6() == c.IPv6 {
			return a
		}
	}
	if node, err := netip.ParseAddr(t.s.options.Host()); err == nil && node.Is6() == c.IPv6 {
		return node
	}
	return loopback
}

// probeHTTP makes a GET on a connection of its own, by no proxy, and follows no
// redirect: a redirect is an answer. Any certificate will do, since a check asks
// for life and not for identity.
func probeHTTP(ctx context.Context, c api.TaskCheck, netns string, address netip.AddrPort) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			err = inNetns(netns, func() error {
				d := net.Dialer{KeepAlive: -1}
				tcp, err := d.DialTCP(ctx, "tcp", netip.AddrPort{}, address)
				if err == nil {
					_ = tcp.SetLinger(0) // no TIME_WAIT for each check
					conn = tcp
				}
				return err
			})
			return conn, err
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Kind+"://"+address.String()+"/"+strings.TrimPrefix(c.Path, "/"), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "weir-health")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxOutput)
	code := response.StatusCode
	if slices.Contains(c.Codes, code) || len(c.Codes) == 0 && code >= 200 && code <= 399 {
		return nil
	}
	return fmt.Errorf("GET %s answered %s", request.URL.Path, response.Status)
}

// probeCommand runs a command beside the task; it passes when it exits with 0.
func (t *task) probeCommand(ctx context.Context, command string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(read, maxOutput))
		_, _ = io.Copy(io.Discard, read) // so that it does not end by SIGPIPE
		line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
		said <- strings.ToValidUTF8(string(line), "?")
	}()
	code, err := t.executor.Exec(ctx, t.launch, Command{Args: []string{"/bin/sh", "-c", command}, Stdio: [3]*os.File{null, write, write}})
	write.Close()
	if err != nil || code == 0 {
		return err
	}
	_ = read.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a child may hold its end for ever
	if line := <-said; line != "" {
		return errors.New("exit code " + strconv.Itoa(code) + ": " + line)
	}
	return errors.New("exit code " + strconv.Itoa(code))
}
