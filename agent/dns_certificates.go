package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// certificateCheck is how often the certificate's files are looked at, at most.
const certificateCheck = time.Second

// certificates reads a file of them; nil means the system's.
func certificates(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the upstreams' certificates (dns.upstream_ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the upstreams' certificates (dns.upstream_ca): %s has none in PEM", file)
	}
	return pool, nil
}

// certificate is the proxy's own, read anew when its files change.
type certificate struct {
	config DNSTLSConfig
	log    *slog.Logger

	mu      sync.Mutex // guards what follows; held while the files are read, by handshakes only
	current *tls.Certificate
	files   [2]fileState
	checked time.Time
}

// serverTLS is the configuration of the proxy as a TLS server.
func serverTLS(c DNSTLSConfig, log *slog.Logger) (*tls.Config, error) {
	own := &certificate{config: c, log: log}
	if _, err := own.get(nil); err != nil {
		return nil, fmt.Errorf("read the DNS proxy's certificate (dns.tls): %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"dot"}, GetCertificate: own.get}, nil
}

// get gives the certificate. One that cannot be read leaves the last good one.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.checked) < certificateCheck {
		return c.current, nil
	}
	c.checked = time.Now()
	files := [2]fileState{stateOfFile(c.config.Certificate), stateOfFile(c.config.Key)}
	if c.current != nil && files == c.files {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.config.Certificate, c.config.Key)
	switch {
	case err == nil:
		c.current = &pair
	case c.current == nil:
		return nil, err
	default:
		c.log.Error("new certificate cannot be used; the old one goes on", "component", "dns", "error", err)
	}
	c.files = files
	return c.current, nil
}

// fileState tells whether a file is another than before, or written again.
type fileState struct {
	modified time.Time
	size     int64
	inode    uint64
}

func stateOfFile(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{}
	}
	f := fileState{modified: info.ModTime(), size: info.Size()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.inode = stat.Ino
	}
	return f
}
