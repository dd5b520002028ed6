// Package trust is how everybody knows a controller, and how a controller knows
// everybody: tokens that carry the authority's pin, identities in certificates,
// and TLS settings for both the first contact and all later ones. It keeps
// nothing and asks nobody. Clients and controllers use it alike.
package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Kind is what an identity is of.
type Kind string

// The kinds. Anonymous is whoever shows nothing.
const (
	Node       Kind = "node"
	Operator   Kind = "operator"
	Controller Kind = "controller"
	Anonymous  Kind = "anonymous"
)

// ServerName is a name that every controller's certificate bears, so that
// controllers may have any address.
const ServerName = "controller.weir.internal"

// Identity is what a certificate says of its owner: spiffe://cluster/kind/id.
type Identity struct {
	Cluster string
	Kind    Kind
	ID      string
}

// URI is the identity as certificates bear it.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: i.Cluster, Path: "/" + string(i.Kind) + "/" + i.ID}
}

// ErrNoIdentity is of a certificate that bears none of ours.
var ErrNoIdentity = errors.New("the certificate bears no identity of a Weir cluster")

// IdentityOf reads a certificate's identity, or ErrNoIdentity. It verifies
// nothing.
func IdentityOf(certificate *x509.Certificate) (Identity, error) {
	if len(certificate.URIs) != 1 || certificate.URIs[0].Scheme != "spiffe" {
		return Identity{}, ErrNoIdentity
	}
	uri := certificate.URIs[0]
	kind, id, ok := strings.Cut(strings.TrimPrefix(uri.Path, "/"), "/")
	known := Kind(kind) == Node || Kind(kind) == Operator || Kind(kind) == Controller
	if !ok || !known || uri.Host == "" || id == "" || strings.Contains(id, "/") {
		return Identity{}, ErrNoIdentity
	}
	return Identity{Cluster: uri.Host, Kind: Kind(kind), ID: id}, nil
}

// pinSize is how much of the hash a pin holds, in bytes.
const pinSize = 16

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Pin is the authority's fingerprint: the beginning of the SHA-256 of its
// public key, in base32.
func Pin(authority *x509.Certificate) string {
	sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
	return strings.ToLower(encoding.EncodeToString(sum[:pinSize]))
}

// Token is a token taken apart. Its text is weir1.ID.SECRET.PIN.
type Token struct {
	ID     string // public
	Secret string
	Pin    string // of the authority that made it
}

// ParseToken reads a token; the error does not repeat it.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != "weir1" {
		return Token{}, errors.New("token: want weir1. and three parts")
	}
	t := Token{ID: parts[1], Secret: parts[2], Pin: parts[3]}
	for _, part := range []struct {
		name, text string
		size       int
	}{{"id", t.ID, idSize}, {"secret", t.Secret, secretSize}, {"pin", t.Pin, pinSize}} {
		raw, err := encoding.DecodeString(strings.ToUpper(part.text))
		if err != nil || len(raw) != part.size || part.text != strings.ToLower(part.text) {
			return Token{}, fmt.Errorf("token: its %s is not whole", part.name)
		}
	}
	return t, nil
}

// Sizes of a token's parts, in bytes.
const (
	idSize     = 5
	secretSize = 20
)

// NewToken makes a token of random bytes, of which it reads 25.
func NewToken(random func([]byte), pin string) Token {
	raw := make([]byte, idSize+secretSize)
	random(raw)
	text := func(b []byte) string { return strings.ToLower(encoding.EncodeToString(b)) }
	return Token{ID: text(raw[:idSize]), Secret: text(raw[idSize:]), Pin: pin}
}

// String is the whole token: it is a secret.
func (t Token) String() string { return strings.Join([]string{"weir1", t.ID, t.Secret, t.Pin}, ".") }

// Hash is what a controller keeps of the secret. It is drawn from 160 bits, so
// that a slow hash would gain nothing.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t.Secret))
	return strings.ToLower(encoding.EncodeToString(sum[:]))
}
