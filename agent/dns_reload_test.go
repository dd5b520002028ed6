package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// status asks the agent until what it says is as wanted.
func (r *agentRig) awaitStatus(what string, ok func(api.Status) bool) {
	r.t.Helper()
	c, err := client.New(filepath.Join(r.dir, "run/agent.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	var s api.Status
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s, err = c.Status(r.t.Context()); err == nil && ok(s) {
			return
		}
	}
	r.t.Fatalf("%s: got %+v, %v", what, s, err)
}

func TestForwardingIsTakenOverWithoutARestart(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	here := slowUpstream(t, 0)
	r := newAgentRig(t, "dns: {forward: {.: []}}")
	cmd := r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	awaitName(t, "x.corp.example.", "REFUSED")

	r.configure(fmt.Sprintf("dns: {forward: {.: [], corp.example: [%s]}}", here)) // the file is watched
	awaitName(t, "x.corp.example.", "192.0.2.1")
	awaitName(t, "x.example.", "REFUSED")

	for what, bad := range map[string]string{
		"a loop":        "dns: {forward: {.: [], corp.example: [169.254.53.53]}}",
		"nonsense":      "dns: {forward: {.: [], corp.example: [nowhere]}}",
		"a zone twice":  fmt.Sprintf("dns: {forward: {.: [], corp.example: [%s], CORP.example: [%s]}}", here, here),
		"another's key": "dsn: {}",
	} {
		r.configure(bad)
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.awaitStatus(what+" is refused", func(s api.Status) bool {
			return len(s.Refused) == 1 && strings.HasSuffix(s.Refused[0].File, "agent.yaml") && s.Refused[0].Reason != ""
		})
		awaitName(t, "y.corp.example.", "192.0.2.1") // the old one stays
		r.configure(fmt.Sprintf("dns: {forward: {.: [], corp.example: [%s]}}", here))
		r.awaitStatus("a good file again", func(s api.Status) bool { return len(s.Refused) == 0 })
	}

	r.configure(fmt.Sprintf("dns: {forward: {.: [], corp.example: [%s]}, access: {corp.example: [192.0.2.0/24]}, domain: other.internal}", here))
	awaitName(t, "z.corp.example.", "REFUSED")
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	r.awaitStatus("a change that needs a restart is told", func(s api.Status) bool {
		for _, c := range s.Components {
			if c.Name == "dns" {
				return strings.Contains(c.Detail, "need a restart")
			}
		}
		return false
	})
}

func TestEveryKeyOfTheProxyIsWired(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := newAgentRig(t, "dns: {}")
	roots := certificateFiles(t, r.dir)
	r.configure(fmt.Sprintf("dns: {nsid: a1.rack7, version: weir 1, empty_zones: true, dnstap: %[1]s/tap, tls: {listen: [169.254.53.53], certificate: %[1]s/cert.pem, key: %[1]s/key.pem}}", r.dir))
	r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")

	question := new(dns.Msg).SetQuestion("db.weir.internal.", dns.TypeA)
	question.SetEdns0(1232, false)
	question.IsEdns0().Option = append(question.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	over := dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{RootCAs: roots, ServerName: "proxy.example"}, Timeout: 10 * time.Second}
	m, _, err := over.Exchange(question, "169.254.53.53:853")
	if err != nil || len(m.Answer) != 1 {
		t.Fatalf("over TLS: got %v, %v", m, err)
	}
	if o := m.IsEdns0(); o == nil || len(o.Option) != 1 || o.Option[0].String() != fmt.Sprintf("%x", "a1.rack7") {
		t.Errorf("nsid: got %v", o)
	}
	version := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	version.Question[0].Qclass = dns.ClassCHAOS
	if m, err := dns.Exchange(version, proxyAddress); err != nil || !strings.Contains(fmt.Sprint(m.Answer), "weir 1") {
		t.Errorf("version: got %v, %v", m, err)
	}
	if m, err := askProxy("udp", proxyAddress, "1.1.1.10.in-addr.arpa.", dns.TypePTR, 5*time.Second); err != nil || m.Rcode != dns.RcodeNameError {
		t.Errorf("an empty zone: got %v, %v", m, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(filepath.Join(r.dir, "tap")); err == nil && info.Size() > 100 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("dnstap: nothing was written")
		}
	}
}

// certificateFiles writes cert.pem and key.pem for proxy.example.
func certificateFiles(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"proxy.example"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	for name, content := range map[string][]byte{"cert.pem": text, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

func TestACertificateIsReadAnewWhenItsFileChanges(t *testing.T) {
	dir := t.TempDir()
	certificateFiles(t, dir)
	c := &certificate{config: DNSTLSConfig{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}, log: slog.New(slog.DiscardHandler)}
	first, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	certificateFiles(t, dir)
	c.checked = time.Time{}
	second, err := c.get(nil)
	if err != nil || second == first {
		t.Errorf("the old one is still in use: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.checked = time.Time{}
	if third, err := c.get(nil); err != nil || third != second {
		t.Errorf("a bad file took the good one's place: %v", err)
	}
	if _, err := serverTLS(c.config, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "dns.tls") {
		t.Errorf("a bad file at the start: got %v", err)
	}
}
