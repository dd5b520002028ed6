package members

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
)

// joinWithin is how long the others may take to make room: their stores change
// members only after they have been in touch for a while.
const joinWithin = time.Minute

// JoinOptions say whom to ask, and why they should listen.
type JoinOptions struct {
	URL     string // of a controller's API
	Token   string
	Replace bool // a controller that has the name and is gone
}

// Join makes this process one of the controllers of a cluster. It asks twice:
// with the token for a certificate, and with that for a place and for the key of
// the authority. Open is what follows.
func Join(ctx context.Context, o Options, j JoinOptions) (clusterID string, err error) {
	if err := o.complete(); err != nil {
		return "", err
	}
	if kept, err := o.read(); err == nil {
		return "", fmt.Errorf("this is a controller of the cluster %s already: remove it there and empty %s", kept.ClusterID, o.DataDir)
	} else if !errors.Is(err, ErrNotInitialised) {
		return "", err
	}
	token, err := trust.ParseToken(j.Token)
	if err != nil {
		return "", err
	}
	kept := keptController{ID: newID(o.Now()), Name: o.Name}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: o.Name}}, private)
	if err != nil {
		return "", fmt.Errorf("make a certificate request: %w", err)
	}
	joined, err := post[api.Joined](ctx, trust.Pinned(token.Pin), j.URL+client.PathJoinController, api.Join{
		Token: j.Token, ID: kept.ID, Name: o.Name, Replace: j.Replace, Hosts: o.hosts(),
		Request: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})),
	})
	if err != nil {
		return "", fmt.Errorf("join by %s: %w", j.URL, err)
	}
	kept.ClusterID = joined.ClusterID
	place, err := o.takePlace(ctx, j.URL, kept, joined, private)
	if err != nil {
		return "", fmt.Errorf("join by %s: %w", j.URL, err)
	}
	kept.Cluster = place.Cluster
	return kept.ClusterID, o.keepPlace(kept, place)
}

// takePlace asks until the others have made room.
func (o *Options) takePlace(ctx context.Context, base string, kept keptController, joined api.Joined, private *ecdsa.PrivateKey) (api.ControllerJoined, error) {
	block, _ := pem.Decode([]byte(joined.Certificate))
	if block == nil {
		return api.ControllerJoined{}, errors.New("the answer holds no certificate")
	}
	own := &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: private}
	settings := trust.Config(joined.ClusterID, func() []byte { return []byte(joined.CA) }, func() (*tls.Certificate, error) { return own, nil })
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	for {
		place, err := post[api.ControllerJoined](ctx, settings, base+client.PathControllers, api.ControllerJoin{ID: kept.ID, Name: o.Name, URL: o.URL, Peer: o.Peer})
		var refused *refusal
		if err == nil || errors.As(err, &refused) && refused.status < 500 && refused.status != http.StatusConflict {
			return place, err
		}
		o.Log.Info("waiting for a place", "error", err)
		select {
		case <-ctx.Done():
			return place, err
		case <-time.After(time.Second):
		}
	}
}

// keepPlace writes what Open needs; controller.json last, it makes the rest
// count.
func (o *Options) keepPlace(kept keptController, place api.ControllerJoined) error {
	key, err := auth.SealKeyOf(place.CAKey)
	if err != nil {
		return err
	}
	authority, err := auth.OpenAuthority(place.Authority, key, o.Now)
	if err != nil {
		return err
	}
	if err := o.keepKey(key); err != nil {
		return err
	}
	return errors.Join(o.saveAuthority(authority), o.write(kept))
}

func (o *Options) keepKey(key auth.SealKey) error {
	if old, err := auth.ReadSealKey(o.CAKeyFile); err == nil {
		if old == key {
			return nil
		}
		return fmt.Errorf("%s is the key of another cluster: move it away", o.CAKeyFile)
	}
	return key.WriteFile(o.CAKeyFile)
}

// refusal is an answer that is none.
type refusal struct {
	status int
	detail string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (%d)", r.detail, r.status) }

// post asks a controller.
func post[T any](ctx context.Context, settings *tls.Config, target string, body any) (T, error) {
	var answer T
	text, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(text))
	if err != nil {
		return answer, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) { // its text repeats the URL
			err = inner.Err
		}
		return answer, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return answer, err
	}
	if response.StatusCode/100 != 2 {
		var problem struct{ Title, Detail string }
		if json.Unmarshal(content, &problem) != nil {
			problem.Detail, _, _ = strings.Cut(strings.TrimSpace(string(content)), "\n")
		}
		if problem.Detail == "" {
			problem.Detail = strings.TrimSpace(response.Status + " " + problem.Title)
		}
		return answer, &refusal{status: response.StatusCode, detail: problem.Detail}
	}
	return answer, json.Unmarshal(content, &answer)
}
