package agent

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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
)

// askTimeout of one request that is answered at once.
const askTimeout = 10 * time.Second

// JoinOptions of Join.
type JoinOptions struct {
	// Controllers to ask, one after the other: URLs.
	Controllers []string
	// Token that lets the node in, as weir token create prints it.
	Token string
	// Replace takes the name from another node that has it.
	Replace bool
}

// Join makes the node of the configuration a member of a cluster and writes
// down, in data_dir, what the agent needs from then on. Nothing is sent to a
// controller before its authority is the one that the token names. A node that
// had joined before keeps its id.
func Join(ctx context.Context, c Config, o JoinOptions) (cluster string, err error) {
	token, err := trust.ParseToken(o.Token)
	if err != nil {
		return "", err
	}
	if c.Node.Name == "" {
		return "", fault("node.name", "is missing")
	}
	if len(o.Controllers) == 0 {
		return "", errors.New("join a cluster: give the URL of a controller")
	}
	for _, one := range o.Controllers {
		if err := checkController(one); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return "", err
	}
	i := &identity{dir: c.DataDir}
	id, err := ensureNodeID(filepath.Join(c.DataDir, nodeIDFile))
	if err != nil {
		return "", err
	}
	if i.key, err = ensureKey(filepath.Join(c.DataDir, keyFile)); err != nil {
		return "", err
	}
	request, err := i.request()
	if err != nil {
		return "", err
	}
	body := api.Join{Token: o.Token, ID: id, Name: c.Node.Name, Request: request, Replace: o.Replace}
	var faults []error
	for _, one := range o.Controllers {
		joined, err := post[api.Joined](ctx, trust.Pinned(token.Pin), one, client.PathJoin, body)
		if err == nil {
			m := membership{Joined: joined, NodeID: id, Name: c.Node.Name, Controllers: o.Controllers}
			if err := i.take(m); err != nil {
				return "", err
			}
			return joined.ClusterID, save(filepath.Join(c.DataDir, joinedFile), m)
		}
		faults = append(faults, fmt.Errorf("join by %s: %w", one, err))
	}
	return "", errors.Join(faults...)
}

// checkController tells what is wrong with a controller's URL.
func checkController(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%q is no URL such as https://10.0.0.2:8443", text)
	}
	return nil
}

// post sends a request that is answered at once.
func post[T any](ctx context.Context, settings *tls.Config, controller, path string, body any) (T, error) {
	var answer T
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(controller, "/")+path, bytes.NewReader(text))
	if err != nil {
		return answer, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return answer, withoutURL(err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return answer, refusal(response)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("read the answer: %w", err)
	}
	return answer, nil
}

// withoutURL leaves out what the caller says anyway.
func withoutURL(err error) error {
	var inside *url.Error
	if errors.As(err, &inside) {
		return inside.Err
	}
	return err
}

// refusal is what a controller answered instead.
func refusal(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	p := &client.Problem{Title: http.StatusText(response.StatusCode), Detail: strings.TrimSpace(string(body))}
	_ = json.Unmarshal(body, p) // whatever it is, there is something to say
	p.Status = response.StatusCode
	return p
}
