package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
)

// Where a joined node keeps who it is, below data_dir. The private key is made
// on the node and never leaves it.
const (
	nodeIDFile = "node-id"
	keyFile    = "node.key"
	joinedFile = "joined.json"
)

// membership is what a node has from joining: its certificate, and how to know
// and find the controllers. It holds the peers' key: the file is the owner's.
type membership struct {
	api.Joined
	NodeID      string   `json:"node_id"`
	Name        string   `json:"name"`
	Controllers []string `json:"controllers"` // URLs
	// Removed says when and why the controllers took the node out; it must join
	// anew.
	Removed string `json:"removed,omitempty"`
}

// identity is the node's membership in force. It may change while it is used.
type identity struct {
	dir string
	key *ecdsa.PrivateKey

	mu          sync.Mutex // guards what follows
	membership  membership
	certificate *tls.Certificate
}

// loadIdentity reads what joining left in the folder; nil when the node has not
// joined.
func loadIdentity(dir string) (*identity, error) {
	i := &identity{dir: dir}
	var m membership
	found, err := load(filepath.Join(dir, joinedFile), &m)
	if err != nil || !found {
		return nil, err
	}
	if i.key, err = readKey(filepath.Join(dir, keyFile)); err != nil {
		return nil, err
	}
	return i, i.take(m)
}

// take makes the membership the one in force.
func (i *identity) take(m membership) error {
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return fmt.Errorf("take the node's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair([]byte(m.Certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		return fmt.Errorf("take the node's certificate: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.membership, i.certificate = m, &pair
	return nil
}

// change makes a change of the membership and writes it down.
func (i *identity) change(edit func(*membership)) error {
	m := i.get()
	edit(&m)
	if err := i.take(m); err != nil {
		return err
	}
	return save(filepath.Join(i.dir, joinedFile), m)
}

func (i *identity) get() membership {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.membership
	m.Controllers = append([]string(nil), m.Controllers...)
	return m
}

// tls are the settings to speak to the controllers with.
func (i *identity) tls() *tls.Config {
	return trust.Config(i.get().ClusterID,
		func() []byte { return []byte(i.get().CA) },
		func() (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.certificate, nil
		})
}

// request asks for a certificate of the node's key.
func (i *identity) request() (string, error) { return certificateRequest(i.key) }

func certificateRequest(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", fmt.Errorf("make the certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// readKey reads the node's private key.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("read the node's key: %s is no PEM file", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the node's key %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the node's key: %s is of another kind than ours", path)
	}
	return key, nil
}

// ensureKey reads the node's key, or makes it where there is none.
func ensureKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	return key, writeOnce(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// ensureNodeID reads the node's id, or makes it: it stays over changes of name,
// address and cluster.
func ensureNodeID(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return id, writeOnce(path, []byte(id+"\n"))
}

// writeOnce makes a file that its owner alone reads, whole or not at all.
func writeOnce(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// renewIn is how long to wait with the renewal of a certificate: to half of its
// life, as the controllers say, but by the certificate where the clock here is
// so wrong that this makes no sense.
func (m membership) renewIn(now time.Time) time.Duration {
	left, all := m.Renew.Sub(now), m.Expires.Sub(m.Renew)
	return min(max(left, 0), max(all, time.Minute))
}
