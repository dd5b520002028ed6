package auth

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
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// Lives of certificates. A certificate begins clockSkew before it is made, so
// that whose clock is an hour behind takes it.
const (
	CertificateTTL = 24 * time.Hour
	authorityTTL   = 10 * 365 * 24 * time.Hour
	clockSkew      = 2 * time.Hour
)

// AuthorityKey is where the store keeps the sealed authority.
const AuthorityKey = prefix + "ca"

// Authority signs every certificate of a cluster. It has one root, or more
// while it changes it: all are trusted, one signs. Safe for concurrent use.
type Authority struct {
	cluster string
	key     SealKey
	now     func() time.Time

	mu    sync.RWMutex
	state authorityState
	roots []root
	trust *x509.CertPool
	own   owned
}

// authorityState is what is sealed.
type authorityState struct {
	Cluster string       `json:"cluster"`
	Signer  int          `json:"signer"` // index of the root that signs
	Changed time.Time    `json:"changed"`
	Roots   []sealedRoot `json:"roots"`
}

type sealedRoot struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // sealed PKCS #8
}

type root struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a new cluster. Its private key is only
// ever written sealed with key.
func NewAuthority(cluster string, key SealKey, now func() time.Time) (*Authority, error) {
	a := &Authority{cluster: cluster, key: key, now: now}
	fresh, err := a.newRoot()
	if err != nil {
		return nil, err
	}
	return a, a.set(authorityState{Cluster: cluster, Changed: now(), Roots: []sealedRoot{fresh}})
}

// OpenAuthority reads what Sealed wrote.
func OpenAuthority(sealed []byte, key SealKey, now func() time.Time) (*Authority, error) {
	var state authorityState
	if err := json.Unmarshal(sealed, &state); err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	a := &Authority{cluster: state.Cluster, key: key, now: now}
	return a, a.set(state)
}

// Sealed is the authority as it is kept: nobody can sign with it who has not
// the key.
func (a *Authority) Sealed() ([]byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return json.Marshal(a.state)
}

// set opens all roots of a state and takes it over.
func (a *Authority) set(state authorityState) error {
	if state.Cluster != a.cluster {
		return fmt.Errorf("open the certificate authority: it is of the cluster %s, not %s", state.Cluster, a.cluster)
	}
	if state.Signer < 0 || state.Signer >= len(state.Roots) {
		return errors.New("open the certificate authority: none of its roots signs")
	}
	pool, roots := x509.NewCertPool(), make([]root, 0, len(state.Roots))
	for _, r := range state.Roots {
		certificate, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return fmt.Errorf("open the certificate authority: %w", err)
		}
		plain, err := a.key.open(r.Key, a.cluster)
		if err != nil {
			return fmt.Errorf("open the certificate authority: %w", err)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(plain)
		if err != nil {
			return fmt.Errorf("open the certificate authority: %w", err)
		}
		private, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || !private.PublicKey.Equal(certificate.PublicKey) {
			return errors.New("open the certificate authority: its key is of another certificate")
		}
		pool.AddCert(certificate)
		roots = append(roots, root{certificate, private})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state, a.roots, a.trust = state, roots, pool
	a.own.certificate = nil // signed anew, with the chain of now
	return nil
}

func (a *Authority) newRoot() (sealedRoot, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return sealedRoot{}, fmt.Errorf("make the authority's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Weir " + a.cluster},
		NotBefore: a.now().Add(-clockSkew), NotAfter: a.now().Add(authorityTTL),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return sealedRoot{}, fmt.Errorf("sign the authority: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return sealedRoot{}, fmt.Errorf("write the authority's key: %w", err)
	}
	return sealedRoot{Certificate: certificate, Key: a.key.seal(plain, a.cluster)}, nil
}

// serial is a random serial number of 127 bits.
func serial() *big.Int {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw)
}

// ClusterID of the authority's cluster.
func (a *Authority) ClusterID() string { return a.cluster }

// Pin of the root that signs: what tokens carry.
func (a *Authority) Pin() string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return trust.Pin(a.roots[a.state.Signer].certificate)
}

// Bundle are the roots, as PEM: what the cluster's members trust.
func (a *Authority) Bundle() []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out bytes.Buffer
	for _, r := range a.roots {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: r.certificate.Raw})
	}
	return out.Bytes()
}

func (a *Authority) pool() *x509.CertPool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.trust
}

// Rotation says how far a change of the root is.
type Rotation string

// The steps of a change of the root. Each must reach everybody, which takes as
// long as a certificate lives, before the next.
const (
	RotationNone    Rotation = "none"    // one root
	RotationTrusted Rotation = "trusted" // the new root is trusted, the old one signs
	RotationSigning Rotation = "signing" // the new root signs, the old one is trusted
)

// Rotation is the present step, and when the next may follow.
func (a *Authority) Rotation() (step Rotation, next time.Time) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case len(a.roots) == 1:
		return RotationNone, a.now()
	case a.state.Signer == 0:
		step = RotationTrusted
	default:
		step = RotationSigning
	}
	return step, a.state.Changed.Add(CertificateTTL)
}

// Rotate goes one step on in changing the root and keeps it in the store; the
// other controllers follow. Before its time it refuses, unless forced: whoever
// has not heard of the step before must then join anew.
func (a *Authority) Rotate(ctx context.Context, s store.Store, force bool) (Rotation, error) {
	step, next := a.Rotation()
	if a.now().Before(next) && !force {
		return step, fmt.Errorf("rotate the authority: its last step has reached everybody only at %s", next.UTC().Format(time.RFC3339))
	}
	kept, err := s.Get(ctx, AuthorityKey)
	if err != nil {
		return step, fmt.Errorf("rotate the authority: %w", err)
	}
	a.mu.RLock()
	state := a.state
	a.mu.RUnlock()
	state.Changed, state.Roots = a.now(), slices.Clone(state.Roots)
	switch step {
	case RotationNone:
		fresh, err := a.newRoot()
		if err != nil {
			return step, err
		}
		state.Roots = append(state.Roots, fresh)
	case RotationTrusted:
		state.Signer = 1
	case RotationSigning:
		state.Roots, state.Signer = state.Roots[1:], 0
	}
	value, err := json.Marshal(state)
	if err != nil {
		return step, err
	}
	if _, err := s.Commit(ctx, []store.Condition{{Key: AuthorityKey, Version: kept.Version}}, []store.Op{{Key: AuthorityKey, Value: value}}); err != nil {
		return step, fmt.Errorf("rotate the authority: %w", err)
	}
	if err := a.set(state); err != nil {
		return step, err
	}
	step, _ = a.Rotation()
	return step, nil
}

// Run takes over what other controllers change, until ctx ends; changed is
// called after each.
func (a *Authority) Run(ctx context.Context, s store.Store, changed func()) error {
	for ctx.Err() == nil {
		entries, revision, err := s.Peek(ctx, AuthorityKey)
		if err == nil && len(entries) == 1 {
			a.adopt(entries[0], changed)
		}
		if err == nil {
			for batch := range s.Watch(ctx, AuthorityKey, revision) {
				for _, e := range batch.Events {
					a.adopt(e.Entry, changed)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// Refresh takes over what the store keeps, once.
func (a *Authority) Refresh(ctx context.Context, s store.Store) error {
	e, err := s.Get(ctx, AuthorityKey)
	if err != nil {
		return fmt.Errorf("read the certificate authority: %w", err)
	}
	var state authorityState
	if err := json.Unmarshal(e.Value, &state); err != nil {
		return fmt.Errorf("read the certificate authority: %w", err)
	}
	return a.set(state)
}

// adopt takes a state from the store, if it is a whole one and another.
func (a *Authority) adopt(e store.Entry, changed func()) {
	var state authorityState
	if json.Unmarshal(e.Value, &state) != nil {
		return
	}
	if mine, err := a.Sealed(); err == nil && bytes.Equal(mine, e.Value) {
		return
	}
	if a.set(state) == nil && changed != nil {
		changed()
	}
}

// owned is a controller's own certificate.
type owned struct {
	id          string
	hosts       []string
	certificate *tls.Certificate
	renew       time.Time
}
