package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
)

// ControllerName is the common name of controllers' certificates alone: the
// stores of controllers take no other from each other.
const ControllerName = "weir-controller"

// What may be asked for in a Join.
var (
	idPattern   = regexp.MustCompile(`^[0-9a-z][0-9a-z-]{7,63}$`)
	namePattern = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z._-]{0,61}[0-9A-Za-z])?$`)
)

// maxHosts in one certificate.
const maxHosts = 32

// checkJoin reads a request for a certificate and names what is wrong.
func checkJoin(j api.Join) (*x509.CertificateRequest, error) {
	if !idPattern.MatchString(j.ID) {
		return nil, fmt.Errorf("id: %.70q is no UUID", j.ID)
	}
	if !namePattern.MatchString(j.Name) {
		return nil, fmt.Errorf("name: %.70q: want letters, digits, dots and dashes, at most 63", j.Name)
	}
	if len(j.Hosts) > maxHosts {
		return nil, fmt.Errorf("hosts: %d are more than %d", len(j.Hosts), maxHosts)
	}
	block, _ := pem.Decode([]byte(j.Request))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("request: it is no certificate request in PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if key, ok := request.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("request: the key is not of P-256")
	}
	return request, nil
}

// sign makes a certificate for the key of a request.
func (a *Authority) sign(request *x509.CertificateRequest, who Subject, hosts []string) (api.Joined, error) {
	der, template, _, err := a.certify(request.PublicKey, who, hosts)
	if err != nil {
		return api.Joined{}, err
	}
	var peerKey []byte
	if who.Kind == trust.Node {
		peerKey = a.key.derive("peers of " + a.cluster)
	}
	return api.Joined{
		PeerKey:     peerKey,
		ClusterID:   a.cluster,
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		CA:          string(a.Bundle()),
		Expires:     template.NotAfter, Renew: a.now().Add(CertificateTTL / 2),
	}, nil
}

// certify signs a certificate for a public key, and tells who signed.
func (a *Authority) certify(public any, who Subject, hosts []string) (der []byte, template, by *x509.Certificate, err error) {
	a.mu.RLock()
	signer := a.roots[a.state.Signer]
	a.mu.RUnlock()
	template = &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: string(who.Kind) + " " + who.ID},
		NotBefore: a.now().Add(-clockSkew), NotAfter: a.now().Add(CertificateTTL),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{trust.Identity{Cluster: a.cluster, Kind: who.Kind, ID: who.ID}.URI()},
	}
	if who.Kind == trust.Controller { // only they serve
		template.Subject.CommonName = ControllerName
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = []string{trust.ServerName}
		for _, host := range hosts {
			if ip := net.ParseIP(host); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else if host != "" && host != trust.ServerName {
				template.DNSNames = append(template.DNSNames, host)
			}
		}
	}
	der, err = x509.CreateCertificate(rand.Reader, template, signer.certificate, public, signer.key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("sign the certificate of %s: %w", who, err)
	}
	return der, template, signer.certificate, nil
}

// Serve says whose certificate this process shows: the controller's id, and the
// hosts by which it is reached.
func (a *Authority) Serve(id string, hosts []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own = owned{id: id, hosts: hosts}
}

// Certificate is this controller's own, with the roots in its chain so that a
// pin can be checked. It is made anew at half of its life, or after a change of
// the root.
func (a *Authority) Certificate() (*tls.Certificate, error) {
	a.mu.RLock()
	own := a.own
	a.mu.RUnlock()
	if own.certificate != nil && a.now().Before(own.renew) {
		return own.certificate, nil
	}
	if own.id == "" {
		return nil, errors.New("make the controller's certificate: it has no id yet")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the controller's key: %w", err)
	}
	der, _, by, err := a.certify(&private.PublicKey, Subject{Kind: trust.Controller, ID: own.id, Name: own.id}, own.hosts)
	if err != nil {
		return nil, err
	}
	// The root that signed goes along: a pin is looked for among the chain.
	made := &tls.Certificate{Certificate: [][]byte{der, by.Raw}, PrivateKey: private}
	if made.Leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make the controller's certificate: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own.certificate, a.own.renew = made, a.now().Add(CertificateTTL/2)
	return made, nil
}

// ServerTLS are the settings of the controllers' API. Certificates change
// without a restart. A client certificate is asked for and not required: the
// Door judges it, so that each refusal has its reason and its record.
func (a *Authority) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // browsers
		NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.Certificate()
		},
	}
}

// ClientTLS are the settings to ask another controller.
func (a *Authority) ClientTLS() *tls.Config {
	return trust.Config(a.cluster, a.Bundle, a.Certificate)
}

// Files are this controller's certificate with its key, and the roots, as PEM.
func (a *Authority) Files() (certificate, key, roots []byte, renew time.Time, err error) {
	own, err := a.Certificate()
	if err != nil {
		return nil, nil, nil, renew, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		return nil, nil, nil, renew, fmt.Errorf("write the controller's key: %w", err)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	a.mu.RLock()
	renew = a.own.renew
	a.mu.RUnlock()
	return certificate, key, a.Bundle(), renew, nil
}
