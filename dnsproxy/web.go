package dnsproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Bounds of DNS over HTTPS.
const (
	webIdle  = 30 * time.Second
	webLimit = 10 * time.Second // of one request
	webMedia = "application/dns-message"
)

// web asks an upstream over HTTPS (RFC 8484): requests share one HTTP/2
// connection.
type web struct {
	url       string
	transport *http.Transport
	guard     func(what string)
	ctx       context.Context // ends with the upstream
	end       context.CancelFunc
}

func newWeb(u Upstream, config *tls.Config, guard func(string)) *web {
	path, host := u.Path, u.ServerName
	if path == "" {
		path = "/dns-query"
	}
	if host == "" {
		host = u.Address.Addr().Unmap().WithZone("").String()
	}
	w := &web{url: "https://" + hostPort(host, u.Address) + path, guard: guard}
	w.ctx, w.end = context.WithCancel(context.Background())
	w.transport = &http.Transport{
		// The name in the URL is the certificate's; the address is the upstream's.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", u.Address.String())
		},
		TLSClientConfig: config, TLSHandshakeTimeout: dialTime, ForceAttemptHTTP2: true, IdleConnTimeout: webIdle,
		MaxIdleConnsPerHost: 4, MaxConnsPerHost: 16, ResponseHeaderTimeout: webLimit, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
	}
	return w
}

func hostPort(host string, address netip.AddrPort) string {
	return net.JoinHostPort(host, fmt.Sprint(address.Port()))
}

// send implements way.
func (w *web) send(c *call, packet []byte) error {
	ctx, cancel := context.WithTimeout(w.ctx, webLimit)
	c.stop = cancel
	body := bytes.Clone(packet)
	body[0], body[1] = 0, 0 // the same question is the same request (RFC 8484, 4.1)
	packet[0], packet[1] = 0, 0
	go func() {
		defer cancel()
		defer w.guard("asking an upstream over HTTPS")
		reply, err := w.ask(ctx, body)
		if !c.deliver(reply, err) {
			c.deliver(nil, errNoMatch)
		}
	}()
	return nil
}

func (w *web) ask(ctx context.Context, packet []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(packet))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.url, err)
	}
	request.Header.Set("Content-Type", webMedia)
	request.Header.Set("Accept", webMedia)
	response, err := w.transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != webMedia {
		return nil, fmt.Errorf("ask %s: it says %s with %q", w.url, response.Status, response.Header.Get("Content-Type"))
	}
	reply, err := io.ReadAll(io.LimitReader(response.Body, tcpSize))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.url, err)
	}
	if len(reply) < headerSize {
		return nil, errBroken
	}
	return reply, nil
}

// cancel implements way.
func (w *web) cancel(c *call) {
	if c.stop != nil {
		c.stop()
	}
}

// close implements way.
func (w *web) close() {
	w.end()
	w.transport.CloseIdleConnections()
}
