package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
)

// ClusterOptions say where the controllers are and how both sides know each
// other.
type ClusterOptions struct {
	// Controllers are URLs, tried one after the other.
	Controllers []string
	// ClusterID and CA, as PEM, are what a controller must show.
	ClusterID string
	CA        []byte
	// Token is shown as a bearer, unless there is a Certificate.
	Token       string
	Certificate *tls.Certificate
}

// Cluster is a client of a cluster's controllers. Any number of goroutines may
// use it.
type Cluster struct {
	o    ClusterOptions
	http *http.Client
}

// NewCluster makes a client; nothing is sent yet.
func NewCluster(o ClusterOptions) (*Cluster, error) {
	if len(o.Controllers) == 0 {
		return nil, errors.New("no controller is given: log in with weir login URL --token TOKEN")
	}
	for _, c := range o.Controllers {
		if u, err := url.Parse(c); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("%q is no URL of a controller such as https://10.80.0.2:8443", c)
		}
	}
	var own func() (*tls.Certificate, error)
	if o.Certificate != nil {
		own = func() (*tls.Certificate, error) { return o.Certificate, nil }
	}
	settings := trust.Config(o.ClusterID, func() []byte { return o.CA }, own)
	return &Cluster{o: o, http: clusterHTTP(settings)}, nil
}

func clusterHTTP(settings *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: settings, ForceAttemptHTTP2: true, TLSHandshakeTimeout: timeout, IdleConnTimeout: timeout, Proxy: http.ProxyFromEnvironment,
	}}
}

// Close ends idle connections.
func (c *Cluster) Close() { c.http.CloseIdleConnections() }

// Login makes what NewCluster needs of an operator's token: the first controller
// that answers is known by the token's pin, and gives a token for a while.
func Login(ctx context.Context, controllers []string, token string) (ClusterOptions, time.Time, error) {
	parsed, err := trust.ParseToken(token)
	if err != nil {
		return ClusterOptions{}, time.Time{}, err
	}
	first, err := NewCluster(ClusterOptions{Controllers: controllers})
	if err != nil {
		return ClusterOptions{}, time.Time{}, err
	}
	first.http = clusterHTTP(trust.Pinned(parsed.Pin))
	defer first.Close()
	ca, err := ask[api.Authorities](ctx, first, http.MethodGet, PathCA, nil, nil, nil)
	if err != nil {
		return ClusterOptions{}, time.Time{}, err
	}
	login, err := ask[api.Login](ctx, first, http.MethodPost, PathLogin, nil, nil, api.LoginRequest{Token: token})
	if err != nil {
		return ClusterOptions{}, time.Time{}, err
	}
	return ClusterOptions{Controllers: controllers, ClusterID: ca.ClusterID, CA: []byte(ca.CA), Token: login.Token}, login.Expires, nil
}

// clusterTimeout of one request.
const clusterTimeout = 30 * time.Second

// ask sends a request to the first controller that answers and reads a JSON
// answer; T may be struct{} where there is none.
func ask[T any](ctx context.Context, c *Cluster, method, path string, query url.Values, header http.Header, body any) (T, error) {
	var value T
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	response, err := c.do(ctx, method, path, query, header, body)
	if err != nil {
		return value, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return value, nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&value); err != nil {
		return value, fmt.Errorf("read the controller's answer to %s: %w", path, err)
	}
	return value, nil
}

// do sends a request. Another controller is asked where one cannot be reached,
// and, as long as nothing can have been done, where one has no state.
func (c *Cluster) do(ctx context.Context, method, path string, query url.Values, header http.Header, body any) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("ask a controller for %s: %w", path, err)
		}
	}
	var faults []error
	for _, controller := range c.o.Controllers {
		response, err := c.doAt(ctx, controller, method, path, query, header, content)
		if err == nil {
			return response, nil
		}
		var problem *Problem
		if errors.As(err, &problem) && (problem.Status != http.StatusServiceUnavailable || method != http.MethodGet) {
			return nil, err
		}
		faults = append(faults, err)
		if ctx.Err() != nil || method != http.MethodGet && !notSent(err) {
			break
		}
	}
	if len(faults) == 1 {
		return nil, faults[0]
	}
	return nil, fmt.Errorf("no controller answers: %w", errors.Join(faults...))
}

// errNotConnected marks requests that have reached nobody.
var errNotConnected = errors.New("not connected")

func notSent(err error) bool { return errors.Is(err, errNotConnected) }

func (c *Cluster) doAt(ctx context.Context, controller, method, path string, query url.Values, header http.Header, content []byte) (*http.Response, error) {
	target := strings.TrimSuffix(controller, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	// A body that is not read was not sent: whoever waits for the handshake has
	// done nothing yet.
	sent := &sentReader{Reader: bytes.NewReader(content)}
	request, err := http.NewRequestWithContext(ctx, method, target, sent)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", controller, err)
	}
	request.ContentLength = int64(len(content))
	if len(content) == 0 {
		request.Body = http.NoBody
	} else {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if c.o.Token != "" && c.o.Certificate == nil {
		request.Header.Set("Authorization", "Bearer "+c.o.Token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var inside *url.Error // its text repeats the URL
		if errors.As(err, &inside) {
			err = inside.Err
		}
		if !sent.read && len(content) > 0 {
			err = fmt.Errorf("%w: %w", errNotConnected, err)
		}
		return nil, fmt.Errorf("ask the controller at %s: %w", controller, err)
	}
	if response.StatusCode/100 != 2 {
		defer response.Body.Close()
		return nil, problemOf(response)
	}
	return response, nil
}

// sentReader knows whether anybody has begun to read it.
type sentReader struct {
	*bytes.Reader
	read bool
}

func (s *sentReader) Read(p []byte) (int, error) {
	s.read = true
	return s.Reader.Read(p)
}

// ifVersion asks for an object's version: 0: it is not there; nil: any.
func ifVersion(version *uint64) http.Header {
	switch {
	case version == nil:
		return nil
	case *version == 0:
		return http.Header{"If-None-Match": {"*"}}
	}
	return http.Header{"If-Match": {`"` + strconv.FormatUint(*version, 10) + `"`}}
}
