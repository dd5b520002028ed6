package dnsproxy

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// withCookie adds the server's half of a cookie to a reply.
func withCookie(m, q *dns.Msg, server string) *dns.Msg {
	m.SetEdns0(1232, false)
	if client := cookieOf(q); client != "" {
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: client[:16] + hex.EncodeToString([]byte(server))})
	}
	return m
}

func cookieOf(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				return c.Cookie
			}
		}
	}
	return ""
}

func good(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
	m.Answer = append(m.Answer, rr)
	return m
}

func isTCP(w dns.ResponseWriter) bool { _, ok := w.LocalAddr().(*net.TCPAddr); return ok }

func features(p *Proxy) (edns, cookies, odd string) {
	return p.forward.routes.Load().upstreams[0].dresser.describe(p.now())
}

// some asks n new questions, all of which must be answered.
func some(t *testing.T, p *Proxy, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("%d.%d.some.letters.example.", i, time.Now().UnixNano())
		if m := resolve(t, p, name, dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
			t.Fatalf("question %d: got %v", i, m)
		}
	}
}

func TestOddCaseIsAskedInAndLearnt(t *testing.T) {
	var mu sync.Mutex
	names := map[string]bool{}
	flat := false
	overTCP := 0
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		names[strings.SplitN(r.Question[0].Name, ".", 3)[2]] = true
		m := good(r)
		if flat {
			m.Question[0].Name = strings.ToLower(m.Question[0].Name)
		}
		if isTCP(w) {
			overTCP++
		}
		w.WriteMsg(m)
	})
	p := cluster(t, up)
	some(t, p, 10)
	mu.Lock()
	defer mu.Unlock()
	if _, _, odd := features(p); len(names) < 8 || odd != "yes" {
		t.Errorf("10 questions in %d spellings; the server keeps the case: %s", len(names), odd)
	}
	flat = true
	mu.Unlock()
	some(t, p, 10)
	mu.Lock()
	if _, _, odd := features(p); odd != "no" || overTCP != oddStrikes {
		t.Errorf("when it keeps it no more: %s, after %d questions over TCP", odd, overTCP)
	}
	later(p, 2*relearn)
	if _, _, odd := features(p); odd != "unknown" {
		t.Errorf("after a while: %s", odd)
	}
}

func TestCookiesAreLearntAndSentBack(t *testing.T) {
	var mu sync.Mutex
	full, stop, overTCP := 0, false, 0
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if len(cookieOf(r)) == 32 && strings.HasSuffix(cookieOf(r), hex.EncodeToString([]byte("server01"))) {
			full++
		}
		if isTCP(w) {
			overTCP++
		}
		if stop {
			w.WriteMsg(good(r))
			return
		}
		w.WriteMsg(withCookie(good(r), r, "server01"))
	})
	p := cluster(t, up)
	some(t, p, 5)
	mu.Lock()
	defer mu.Unlock()
	if _, cookies, _ := features(p); cookies != "yes" || full != 4 {
		t.Errorf("cookies: %s; %d of 5 questions came with the server's", cookies, full)
	}
	stop = true
	mu.Unlock()
	some(t, p, 6) // the first are asked again over TCP, since the replies may be forged
	mu.Lock()
	if _, cookies, _ := features(p); cookies != "no" || overTCP != cookieStrikes {
		t.Errorf("without them: %s after %d questions over TCP", cookies, overTCP)
	}
}

func TestReplyWithAnothersCookieIsIgnored(t *testing.T) {
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		forged := good(r)
		forged.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 66)
		forged.SetEdns0(1232, false)
		forged.IsEdns0().Option = append(forged.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "00112233445566778899aabbccddeeff"})
		w.WriteMsg(forged)
		w.WriteMsg(withCookie(good(r), r, "server01"))
	})
	p := cluster(t, up)
	some(t, p, 3)
	if n := p.Upstreams()[0].Forged; n != 3 {
		t.Errorf("%d forgeries are counted, want 3", n)
	}
}

func TestServerThatWantsAFreshCookie(t *testing.T) {
	var mu sync.Mutex
	secret, queries := "server01", 0
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		queries++
		m := good(r)
		if !strings.HasSuffix(cookieOf(r), hex.EncodeToString([]byte(secret))) {
			m = new(dns.Msg).SetRcode(r, dns.RcodeBadCookie)
		}
		m = withCookie(m, r, secret)
		if m.Answer == nil {
			m.SetRcode(r, dns.RcodeBadCookie)
			m.Question[0].Name = r.Question[0].Name
		}
		w.WriteMsg(m)
	})
	p := cluster(t, up)
	some(t, p, 3)
	mu.Lock()
	secret = "server02"
	mu.Unlock()
	some(t, p, 3)
	mu.Lock()
	defer mu.Unlock()
	if queries != 8 {
		t.Errorf("%d queries for 6 questions, want 8: one more for each new secret", queries)
	}
}

func TestServersThatDislikeOptions(t *testing.T) {
	for name, dislikes := range map[string]func(*dns.Msg) bool{
		"EDNS":    func(m *dns.Msg) bool { return m.IsEdns0() != nil },
		"cookies": func(m *dns.Msg) bool { return cookieOf(m) != "" },
	} {
		up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
			m := good(r)
			if dislikes(r) {
				m = new(dns.Msg).SetRcode(r, dns.RcodeFormatError)
			}
			if name == "cookies" {
				m.SetEdns0(1232, false)
			}
			w.WriteMsg(m)
		})
		p := cluster(t, up)
		some(t, p, 5)
		if n := up.queries.Load(); n != 6 {
			t.Errorf("%s: 5 questions took %d packets, want 6: it is learnt", name, n)
		}
		edns, cookies, _ := features(p)
		if name == "EDNS" && edns != "no" || name == "cookies" && (edns != "yes" || cookies != "no") {
			t.Errorf("%s: learnt EDNS %s, cookies %s", name, edns, cookies)
		}
	}
}
