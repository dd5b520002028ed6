package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// RenewGrace is for how long after its end a certificate may still be renewed:
// a node that was switched off for a holiday comes back by itself. Removal takes
// effect at once and does not wait for the end of a certificate.
const RenewGrace = 30 * 24 * time.Hour

// Subject finds who sends a request, by the client certificate or by a bearer
// token. Who shows neither is Anonymous. The error wraps ErrUnauthenticated,
// ErrRevoked or store.ErrUnavailable.
func (d *Door) Subject(r *http.Request) (Subject, error) { return d.subject(r, 0) }

// Renewing is Subject for the renewal of one's own certificate and nothing
// else: it lets in a certificate that ended less than RenewGrace ago.
func (d *Door) Renewing(r *http.Request) (Subject, error) { return d.subject(r, RenewGrace) }

func (d *Door) subject(r *http.Request, grace time.Duration) (Subject, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return d.byCertificate(r.Context(), r.TLS.PeerCertificates, grace)
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return Subject{Kind: trust.Anonymous}, nil
	}
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Subject{}, fmt.Errorf("%w: the Authorization is not of the scheme Bearer", ErrUnauthenticated)
	}
	return d.byToken(r.Context(), text)
}

func (d *Door) byCertificate(ctx context.Context, chain []*x509.Certificate, grace time.Duration) (Subject, error) {
	leaf, now := chain[0], d.now()
	if late := now.Sub(leaf.NotAfter); late > 0 && late <= grace {
		now = leaf.NotAfter
	}
	who, err := trust.Verify(chain, d.authority.pool(), now)
	if err != nil {
		return Subject{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	if who.Cluster != d.authority.ClusterID() {
		return Subject{}, fmt.Errorf("%w: the certificate is of the cluster %s, this is %s", ErrUnauthenticated, who.Cluster, d.authority.ClusterID())
	}
	known, err := d.identity(ctx, who.Kind, who.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Subject{}, fmt.Errorf("%w: %s %s is not known here", ErrRevoked, who.Kind, who.ID)
	case err != nil:
		return Subject{}, err
	case !known.Revoked.IsZero():
		return Subject{}, fmt.Errorf("%w: %s %s, at %s", ErrRevoked, who.Kind, known.Name, known.Revoked.UTC().Format(time.RFC3339))
	case who.Kind != trust.Controller && known.Key != keyHash(leaf.RawSubjectPublicKeyInfo):
		// Controllers make their own certificates, with a key per start.
		return Subject{}, fmt.Errorf("%w: %s %s has joined anew with another key", ErrRevoked, who.Kind, known.Name)
	}
	return Subject{Kind: who.Kind, Name: known.Name, ID: who.ID}, nil
}

// byToken takes operators' tokens that may be used without a limit. Those with
// one are for joining and logging in, where each use is counted.
func (d *Door) byToken(ctx context.Context, text string) (Subject, error) {
	shown, kept, err := d.checkToken(ctx, text, RoleOperator)
	if err != nil {
		return Subject{}, err
	}
	if kept.Uses > 0 {
		return Subject{}, fmt.Errorf("%w: the token is for logging in, once", ErrUnauthenticated)
	}
	return Subject{Kind: trust.Operator, Name: kept.name(shown.ID), ID: "token-" + shown.ID}, nil
}

// checkToken finds a token that is good for a role.
func (d *Door) checkToken(ctx context.Context, text string, role Role) (trust.Token, token, error) {
	shown, err := trust.ParseToken(text)
	if err != nil {
		return shown, token{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	kept, err := d.token(ctx, shown.ID)
	if errors.Is(err, store.ErrNotFound) {
		return shown, token{}, fmt.Errorf("%w: the token %s is not known", ErrUnauthenticated, shown.ID)
	} else if err != nil {
		return shown, token{}, err
	}
	reason := ""
	switch {
	case subtle.ConstantTimeCompare([]byte(kept.Hash), []byte(shown.Hash())) != 1:
		reason = "is not known" // no hint that the id is right
	case !kept.Expires.After(d.now()):
		reason = "has expired at " + kept.Expires.UTC().Format(time.RFC3339)
	case kept.Uses > 0 && kept.Used >= kept.Uses:
		reason = "has been used already"
	case kept.Role != role:
		reason = "is for " + string(kept.Role) + ", not for " + string(role)
	}
	if reason != "" {
		return shown, token{}, fmt.Errorf("%w: the token %s %s", ErrUnauthenticated, shown.ID, reason)
	}
	return shown, kept, nil
}

func keyHash(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return hex.EncodeToString(sum[:])
}
