package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ErrPin is of a first contact with somebody who is not the cluster that the
// token is of.
var ErrPin = errors.New("the controller's authority is not the one that made the token: " +
	"this is another cluster, or somebody in between")

// Pinned are the settings of a first contact: nothing is known of the cluster
// but the pin that came with the token. The handshake fails with ErrPin before
// anything is sent to a server whose chain holds no authority of that pin.
func Pinned(pin string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it all
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, c := range state.PeerCertificates {
				if c.IsCA && Pin(c) == pin {
					pool := x509.NewCertPool()
					pool.AddCert(c)
					return verifyServer(state.PeerCertificates, pool, "", time.Now())
				}
			}
			return ErrPin
		},
	}
}

// Config are the settings of every later contact. authorities returns the CA
// certificates as PEM; own returns the certificate to show, or nil. Both are
// asked at each handshake, so that what is renewed is used. Only a controller
// of the cluster passes: not a node with a certificate of the same authority.
func Config(cluster string, authorities func() []byte, own func() (*tls.Certificate, error)) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it all
		VerifyConnection: func(state tls.ConnectionState) error {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(authorities()) {
				return errors.New("no certificate of the cluster's authority is at hand")
			}
			return verifyServer(state.PeerCertificates, pool, cluster, time.Now())
		},
	}
	if own != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := own()
			if certificate == nil && err == nil {
				certificate = &tls.Certificate{} // none
			}
			return certificate, err
		}
	}
	return config
}

// verifyServer requires a controller's certificate, of the cluster unless that
// is empty.
func verifyServer(chain []*x509.Certificate, pool *x509.CertPool, cluster string, now time.Time) error {
	identity, err := Verify(chain, pool, now)
	if err != nil {
		return err
	}
	if identity.Kind != Controller {
		return fmt.Errorf("the server is %s %s and no controller", identity.Kind, identity.ID)
	}
	if cluster != "" && identity.Cluster != cluster {
		return fmt.Errorf("the controller is of the cluster %s, not %s", identity.Cluster, cluster)
	}
	return nil
}

// Verify checks a chain, leaf first, and returns the leaf's identity. The error
// wraps x509's.
func Verify(chain []*x509.Certificate, pool *x509.CertPool, now time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("verify the certificate: %w", err)
	}
	return IdentityOf(chain[0])
}
