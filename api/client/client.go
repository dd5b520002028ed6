// Package client is the HTTP client of a node's local API, used by the CLI and
// by tests. The agent's server takes the paths from here.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/weirproject/weir/api"
)

// The paths of the API; those of names and zones are in their files. All but
// PathDrain and PathDNSFlush answer GET, with JSON or with a Problem.
const (
	PathStatus      = "/v1/status"      // api.Status
	PathVIPs        = "/v1/vips"        // []api.VIPStatus; below it, by name, one
	PathVIPExplain  = "/v1/vip/explain" // ?name=&protocol=: []api.VIPStep
	PathVIPTrace    = "/v1/vip/trace"   // ?client=&vip=&protocol=: api.VIPTrace
	PathConnections = "/v1/vip/conns"   // ?name=: []api.Connection
	PathDrain       = "/v1/vip/drain"   // POST api.Drain: []api.VIPStatus of the service
)

// DefaultSocket is where the agent of this node listens.
const DefaultSocket = "/run/weir/agent.sock"

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// timeout of one request; a name that is forwarded may take a few seconds.
const timeout = 10 * time.Second

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 256 << 20

// Problem is an error that the server answered with (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"` // HTTP status code
	Detail string `json:"detail"`
	// Faults of the documents that were sent, field by field.
	Faults []api.Fault `json:"faults,omitempty"`
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// Client of one agent. Any number of goroutines may use it.
type Client struct {
	address string // socket's path or base URL, as people know it
	base    url.URL
	unix    bool
	http    *http.Client
}

// New makes a client of the agent at an address: the path of a unix socket, the
// base of a URL (http:// or https://), or DefaultSocket when it is empty.
// Nothing is sent yet. The error tells what is wrong with a URL.
func New(address string) (*Client, error) {
	if address == "" {
		address = DefaultSocket
	}
	transport := &http.Transport{MaxIdleConns: 1, IdleConnTimeout: timeout}
	c := &Client{address: address, http: &http.Client{Timeout: timeout, Transport: transport}}
	if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
		base, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("read the agent's address: %w", err)
		}
		c.base = *base
		return c, nil
	}
	c.base, c.unix = url.URL{Scheme: "http", Host: "agent"}, true
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	return c, nil
}

// Status of the node.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, nil, PathStatus)
}

// VIPs lists the services that the node serves.
func (c *Client) VIPs(ctx context.Context) ([]api.VIPStatus, error) {
	return get[[]api.VIPStatus](ctx, c, nil, PathVIPs)
}

// VIP shows one service by its name: web.shop, or web in the default namespace.
// The error is a *Problem with the status 404 when there is none.
func (c *Client) VIP(ctx context.Context, name string) (api.VIPStatus, error) {
	return get[api.VIPStatus](ctx, c, nil, PathVIPs, name)
}

// VIPExplain goes the way from a VIP's name to its backends, to the first step
// that fails. An empty protocol means any.
func (c *Client) VIPExplain(ctx context.Context, name string, protocol api.Protocol) ([]api.VIPStep, error) {
	return get[[]api.VIPStep](ctx, c, url.Values{"name": {name}, "protocol": {string(protocol)}}, PathVIPExplain)
}

// VIPTrace tells which backend a client would get. The client is an address, or
// empty for the node itself; vip is address:port or a name with a port.
func (c *Client) VIPTrace(ctx context.Context, from, vip string, protocol api.Protocol) (api.VIPTrace, error) {
	return get[api.VIPTrace](ctx, c, url.Values{"client": {from}, "vip": {vip}, "protocol": {string(protocol)}}, PathVIPTrace)
}

// Connections lists the open connections through VIPs, of one service or, with
// an empty name, of all.
func (c *Client) Connections(ctx context.Context, name string) ([]api.Connection, error) {
	return get[[]api.Connection](ctx, c, url.Values{"name": {name}}, PathConnections)
}

// Drain gives a backend no new connections from this node, or does so again.
func (c *Client) Drain(ctx context.Context, d api.Drain) (api.VIPStatus, error) {
	return call[api.VIPStatus](ctx, c, http.MethodPost, nil, d, PathDrain)
}

// get asks for a path and the labels below it.
func get[T any](ctx context.Context, c *Client, query url.Values, path string, below ...string) (T, error) {
	return call[T](ctx, c, http.MethodGet, query, nil, path, below...)
}

// call sends the body, if there is one, as JSON.
func call[T any](ctx context.Context, c *Client, method string, query url.Values, body any, path string, below ...string) (T, error) {
	var value T
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return value, fmt.Errorf("ask the agent for %s: %w", path, err)
		}
		content = bytes.NewReader(text)
	}
	for _, label := range below {
		path += "/" + url.PathEscape(label)
	}
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return value, fmt.Errorf("ask the agent for %s: %w", path, err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return value, c.explain(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return value, problemOf(response)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&value); err != nil {
		return value, fmt.Errorf("read the agent's answer to %s: %w", path, err)
	}
	return value, nil
}

// explain turns a failed request into something to act on.
func (c *Client) explain(err error) error {
	local := c.unix
	var timed net.Error
	switch {
	case local && errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("the agent is not running on this node (no %s): start it with systemctl start weir-agent", c.address)
	case local && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("the agent is not running on this node (nobody listens at %s): start it with systemctl start weir-agent", c.address)
	case local && errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to use %s: run it as root", c.address)
	case errors.As(err, &timed) && timed.Timeout():
		return fmt.Errorf("the agent at %s did not answer within %s", c.address, timeout)
	}
	var inside *url.Error // its text repeats the URL
	if errors.As(err, &inside) {
		err = inside.Err
	}
	return fmt.Errorf("ask the agent at %s: %w", c.address, err)
}

// problemOf reads the problem that was answered, or makes one of what was.
func problemOf(response *http.Response) *Problem {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	var p Problem
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media == ProblemType && json.Unmarshal(body, &p) == nil && p.Error() != "" {
		p.Status = response.StatusCode
		return &p
	}
	said, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return &Problem{
		Type: "about:blank", Title: http.StatusText(response.StatusCode), Status: response.StatusCode,
		Detail: strings.TrimSuffix(fmt.Sprintf("the agent answered %s: %s", response.Status, said), ": "),
	}
}
