package controllerbench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
)

// node is a simulated node.
type node struct {
	name   string
	http   *http.Client
	cancel context.CancelFunc
	acks   chan struct{}

	mu     sync.Mutex
	frames []arrival // in order
	moved  chan struct{}
}

// arrival is when a node had a revision.
type arrival struct {
	revision uint64
	at       time.Time
}

// At once: of joins that use the same token each waits for the other.
const (
	joining    = 2
	connecting = 16
)

// joinAll makes nodes with certificates.
func joinAll(ctx context.Context, p *process, n int) ([]*node, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	nodes := make([]*node, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(joining)
	for i := range nodes {
		g.Go(func() (err error) {
			if nodes[i], err = join(ctx, p, i, key); err != nil {
				return fmt.Errorf("join node %d: %w", i, err)
			}
			return nil
		})
	}
	return nodes, g.Wait()
}

// connect opens the nodes' streams, and returns when all have the whole state.
func connect(ctx context.Context, p *process, nodes []*node) error {
	var g errgroup.Group
	g.SetLimit(connecting)
	for i, one := range nodes {
		g.Go(func() error {
			if err := one.start(ctx, p.hello.URL, i); err != nil {
				return fmt.Errorf("connect node %d: %w", i, err)
			}
			one.await(1, time.Now().Add(settle))
			return nil
		})
	}
	return g.Wait()
}

func join(ctx context.Context, p *process, i int, key *ecdsa.PrivateKey) (*node, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	request := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	n := &node{name: fmt.Sprintf("n%d", i), acks: make(chan struct{}, 1), moved: make(chan struct{})}
	body, err := json.Marshal(api.Join{Token: p.hello.Agent, Name: n.name, ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Request: request})
	if err != nil {
		return nil, err
	}
	authority := func() []byte { return p.login.CA }
	first := &http.Transport{TLSClientConfig: trust.Config(p.login.ClusterID, authority, nil)}
	defer first.CloseIdleConnections()
	asked, err := http.NewRequestWithContext(ctx, http.MethodPost, p.hello.URL+client.PathJoin, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: first}).Do(asked)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("%s: %s", response.Status, text)
	}
	var joined api.Joined
	if err := json.NewDecoder(response.Body).Decode(&joined); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(joined.Certificate))
	if block == nil {
		return nil, fmt.Errorf("the answer has no certificate")
	}
	own := &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	settings := trust.Config(joined.ClusterID, authority, func() (*tls.Certificate, error) { return own, nil })
	n.http = &http.Client{Transport: &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}}
	return n, nil
}

func (n *node) start(ctx context.Context, url string, i int) error {
	ctx, n.cancel = context.WithCancel(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+client.PathStream+"?packed=gzip", nil)
	if err != nil {
		return err
	}
	response, err := n.http.Do(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return fmt.Errorf("open the stream: %s", response.Status)
	}
	go n.read(response.Body)
	reader, writer := io.Pipe()
	report, err := http.NewRequestWithContext(ctx, http.MethodPost, url+client.PathReport, reader)
	if err != nil {
		return err
	}
	go func() {
		if response, err := n.http.Do(report); err == nil {
			response.Body.Close()
		}
		_ = reader.CloseWithError(io.ErrClosedPipe)
	}()
	go n.report(ctx, json.NewEncoder(writer), i)
	return nil
}

// read takes frames; of a change it looks at the revision alone.
func (n *node) read(body io.ReadCloser) {
	defer body.Close()
	lines := bufio.NewReaderSize(body, 16<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var f struct {
			Type     api.FrameType
			Snapshot *struct{ Revision uint64 }
			Change   *struct{ Revision uint64 }
		}
		if json.Unmarshal(line, &f) != nil {
			return
		}
		switch {
		case f.Snapshot != nil:
			n.arrived(f.Snapshot.Revision)
		case f.Change != nil:
			n.arrived(f.Change.Revision)
		}
	}
}

func (n *node) arrived(revision uint64) {
	n.mu.Lock()
	n.frames = append(n.frames, arrival{revision, time.Now()})
	close(n.moved)
	n.moved = make(chan struct{})
	n.mu.Unlock()
	select {
	case n.acks <- struct{}{}:
	default:
	}
}

func (n *node) seen() []arrival {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frames
}

// await returns when the node has a revision, or at the deadline.
func (n *node) await(revision uint64, deadline time.Time) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	for {
		n.mu.Lock()
		moved, has := n.moved, len(n.frames) > 0 && n.frames[len(n.frames)-1].revision >= revision
		n.mu.Unlock()
		if has {
			return
		}
		select {
		case <-moved:
		case <-late.C:
			return
		}
	}
}

// heartbeat of an agent.
const heartbeat = 200 * time.Millisecond

// report sends facts, then heartbeats and acknowledgements.
func (n *node) report(ctx context.Context, out *json.Encoder, i int) {
	address := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})
	r := api.Report{Status: &api.Status{Version: "bench", Node: api.Node{Name: n.name, Addresses: []netip.Addr{address}}}}
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for ; ; r.Status = nil {
		r.Sequence++
		r.Time = time.Now()
		if seen := n.seen(); len(seen) > 0 {
			r.Applied = seen[len(seen)-1].revision
			r.Wanted = r.Applied
		}
		if out.Encode(r) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-n.acks:
		}
	}
}

func (n *node) stop() {
	if n.cancel != nil {
		n.cancel()
	}
	n.http.CloseIdleConnections()
}
