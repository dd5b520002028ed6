package trust

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
)

func TestTokenIsReadAsWritten(t *testing.T) {
	pin := Pin(&x509.Certificate{RawSubjectPublicKeyInfo: []byte("key")})
	made := NewToken(func(b []byte) { copy(b, "0123456789012345678901234") }, pin)
	got, err := ParseToken(" " + made.String() + "\n")
	if err != nil || got != made {
		t.Errorf("got %v, %v, want %v", got, err, made)
	}
	for _, bad := range []string{"", "weir1", "weir2" + made.String()[5:], made.String() + ".x", made.String()[:40], strings.ToUpper(made.String())} {
		if _, err := ParseToken(bad); err == nil || strings.Contains(err.Error(), made.Secret) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestIdentityIsReadAsWritten(t *testing.T) {
	want := Identity{Cluster: "c0de", Kind: Node, ID: "a1"}
	if got, err := IdentityOf(&x509.Certificate{URIs: []*url.URL{want.URI()}}); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"https://c0de/node/a1", "spiffe://c0de/node", "spiffe://c0de/cat/a1", "spiffe:///node/a1", "spiffe://c0de/node/a1/b", "spiffe://c0de/node/"} {
		u, _ := url.Parse(bad)
		if got, err := IdentityOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s: got %v", bad, got)
		}
	}
	if _, err := IdentityOf(&x509.Certificate{}); err == nil {
		t.Error("a certificate without any is taken")
	}
}
