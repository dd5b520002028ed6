package dnsproxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ServerOptions of a Proxy.
type ServerOptions struct {
	// Listen is where the proxy is asked, over UDP and TCP. The addresses need
	// not be on an interface yet. Port 0 picks one (for tests).
	Listen []netip.AddrPort
	// Upstreams answer the names that no zone of Forwarding has, over UDP and
	// TCP: short for a forward zone "." there. Without any, they are refused.
	Upstreams []netip.AddrPort
	// Forwarding says who is asked for what, and who may ask. SetForwarding
	// changes it later.
	Forwarding Forwarding
	// UpstreamTimeout is how long an upstream may take before it counts as
	// silent; 1 s when zero. Another one is asked much earlier, after what this
	// one usually takes. The whole takes at most four times that.
	UpstreamTimeout time.Duration
	// RootCAs check the certificates of TLS and HTTPS upstreams; nil: the system's.
	RootCAs *x509.CertPool
	// StaleAfter is how long a client waits for upstreams while there is an
	// answer past its end; 1.8 s when zero. StaleFor is how long past its end it
	// serves; 24 h when zero (RFC 8767).
	StaleAfter, StaleFor time.Duration
	// ResponseRate bounds the answers per second about names outside the
	// cluster that go over UDP to one network (/24, /56) that is neither the
	// node's nor private; 20 when zero, no bound when negative.
	ResponseRate int
	// MaxForwards bounds the different questions that wait for upstreams at one
	// time, MaxClientForwards those of one client address; 4,096 and 1,024 when
	// zero. Beyond, SERVFAIL is answered at once.
	MaxForwards, MaxClientForwards int
	// ListenTLS is where the proxy is asked over TLS (RFC 7858), with TLS as the
	// server's configuration; usually at port 853.
	ListenTLS []netip.AddrPort
	TLS       *tls.Config
	// NSID names this server to who asks for it (RFC 5001), and in dnstap; at
	// most 64 bytes. Nobody is told when empty.
	NSID string
	// EmptyZones denies the reverse names of private addresses that are not the
	// cluster's instead of asking an upstream, unless a forward zone other than
	// "." has them (RFC 6303).
	EmptyZones bool
	// Dnstap is where queries and answers are written to in dnstap's format:
	// unix:PATH for a socket that somebody listens at, or a file's path. Empty: nowhere.
	Dnstap string
	// Version is told to who asks for version.bind in the class CHAOS; nobody is
	// when empty.
	Version string
	// CacheEntries and CacheBytes bound the cache; 10,000 and 16 MiB when zero.
	CacheEntries, CacheBytes int
	// MaxConns bounds the TCP connections of each Listen address,
	// MaxClientConns those of one client to it; 1,000 and 100 when zero.
	MaxConns, MaxClientConns int
	// Learner is told the addresses of names before clients are; or nil.
	Learner Learner
	// Registerer takes the metrics; nil: none are registered.
	Registerer prometheus.Registerer
	// Log; nil: nothing is logged.
	Log *slog.Logger
}

func (o ServerOptions) withDefaults() ServerOptions {
	set := func(value *int, standard int) {
		if *value == 0 {
			*value = standard
		}
	}
	set(&o.CacheEntries, 10_000)
	set(&o.CacheBytes, 16<<20)
	set(&o.MaxConns, 1_000)
	set(&o.MaxClientConns, 100)
	set(&o.ResponseRate, 20)
	set(&o.MaxForwards, defaultForwards)
	set(&o.MaxClientForwards, defaultClientForwards)
	wait := func(value *time.Duration, standard time.Duration) {
		if *value == 0 {
			*value = standard
		}
	}
	wait(&o.UpstreamTimeout, defaultAttempt)
	wait(&o.StaleAfter, defaultStaleIn)
	wait(&o.StaleFor, defaultStaleFor)
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return o
}

// Validate names the option that cannot be, and its value.
func (o ServerOptions) Validate() error {
	if len(o.Listen) == 0 {
		return errors.New("listen: is empty: give at least one address")
	}
	for _, l := range o.Listen {
		// At 0.0.0.0 answers would leave from the route's address, which need
		// not be the one that was asked; resolvers drop those.
		if !l.Addr().IsValid() || l.Addr().IsUnspecified() {
			return fmt.Errorf("listen: %s is not the address of a host", l)
		}
	}
	if len(o.ListenTLS) > 0 && (o.TLS == nil || len(o.TLS.Certificates) == 0 && o.TLS.GetCertificate == nil) {
		return errors.New("listen with TLS: there is no certificate")
	}
	for _, l := range o.ListenTLS {
		if !l.Addr().IsValid() || l.Addr().IsUnspecified() {
			return fmt.Errorf("listen with TLS: %s is not the address of a host", l)
		}
	}
	if len(o.NSID) > maxNSID {
		return fmt.Errorf("nsid: %q is longer than %d bytes", o.NSID, maxNSID)
	}
	forwarding, err := o.forwarding()
	if err != nil {
		return err
	}
	if err := forwarding.Validate(o.Listen); err != nil {
		return err
	}
	if o.UpstreamTimeout < 0 || o.StaleAfter < 0 || o.StaleFor < 0 || o.CacheEntries < 0 || o.CacheBytes < 0 || o.MaxConns < 0 || o.MaxClientConns < 0 || o.MaxForwards < 0 || o.MaxClientForwards < 0 {
		return errors.New("timeouts and bounds must not be negative")
	}
	return nil
}

// forwarding is Forwarding with Upstreams as its zone ".".
func (o ServerOptions) forwarding() (Forwarding, error) {
	f := o.Forwarding
	if len(o.Upstreams) == 0 {
		return f, nil
	}
	root := ForwardZone{Zone: "."}
	for _, u := range o.Upstreams {
		root.Upstreams = append(root.Upstreams, Upstream{Protocol: UDP, Address: u})
	}
	for _, z := range f.Zones {
		if z.Zone == "." || z.Zone == "" {
			return f, errors.New("upstreams: the forwarding has a zone \".\" too")
		}
	}
	f.Zones = append(f.Zones[:len(f.Zones):len(f.Zones)], root)
	return f, nil
}
