package dnsproxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestWhatADNSProxyMustDo has one case for each RFC that such a server is held
// to. Most have tests of their own beside it; this is the list at a glance.
func TestWhatADNSProxyMustDo(t *testing.T) {
	queries := func(u *fakeUpstream) int { return int(u.queries.Load()) }
	const soaOfExample = "example.com. 300 IN SOA ns. h. 1 2 3 4 60"
	up := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		switch name := strings.ToLower(r.Question[0].Name); {
		case strings.HasPrefix(name, "no."):
			answering(dns.RcodeNameError, soaOfExample)(w, r)
		case strings.HasPrefix(name, "nodata."):
			answering(dns.RcodeSuccess, soaOfExample)(w, r)
		case strings.HasPrefix(name, "fail."):
			answering(dns.RcodeServerFailure)(w, r)
		case r.Question[0].Qtype == 65280:
			answering(dns.RcodeSuccess, `%s 60 IN TYPE65280 \# 3 010203`)(w, r)
		case r.Question[0].Qtype == dns.TypeHTTPS:
			answering(dns.RcodeSuccess, `%s 60 IN HTTPS 1 . alpn="h2" port=8443`)(w, r)
		default:
			m := new(dns.Msg).SetReply(r)
			rr, _ := dns.NewRR(r.Question[0].Name + " 60 IN A 192.0.2.7")
			m.Answer, m.AuthenticatedData = []dns.RR{rr}, true
			w.WriteMsg(m)
		}
	})
	p := cluster(t, up)
	at := running(t, p).String()
	set := func(change func(*dns.Msg)) func(*dns.Msg) { return change }
	for name, test := range map[string]func(t *testing.T){
		"RFC 1034: authoritative answers are marked, others are not": func(t *testing.T) {
			if m := ask(t, p, "a1.node.mesos.", dns.TypeA); !m.Authoritative || len(m.Answer) != 1 {
				t.Error(m)
			}
			if m := resolve(t, p, "www.example.com.", dns.TypeA); m.Authoritative || !m.RecursionAvailable {
				t.Error(m)
			}
		},
		"RFC 1035: id, opcode and RD come back": func(t *testing.T) {
			if m := ask(t, p, "mesos.", dns.TypeNS, set(func(m *dns.Msg) { m.RecursionDesired = false })); m.RecursionDesired || m.Opcode != dns.OpcodeQuery {
				t.Error(m)
			}
		},
		"RFC 1123, 6.1 and RFC 7766: TCP, several questions on a connection": func(t *testing.T) {
			conn, err := dns.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 3 {
				if m, _, err := (&dns.Client{}).ExchangeWithConn(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), conn); err != nil || len(m.Answer) != 1 {
					t.Error(m, err)
				}
			}
		},
		"RFC 2181, 5.2: the records of a set have one TTL": func(t *testing.T) {
			m := ask(t, p, "dir.mesos.", dns.TypeA)
			if len(m.Answer) != 2 || m.Answer[0].Header().Ttl != 60 || m.Answer[1].Header().Ttl != 60 {
				t.Error(m)
			}
		},
		"RFC 2308: NODATA and NXDOMAIN with an SOA, kept as long as it says": func(t *testing.T) {
			for range 2 {
				if m := resolve(t, p, "nodata.example.com.", dns.TypeA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
					t.Error(m)
				}
				if m := resolve(t, p, "no.example.com.", dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Ns) != 1 {
					t.Error(m)
				}
			}
			before := queries(up)
			if resolve(t, p, "no.example.com.", dns.TypeA); queries(up) != before {
				t.Error("a kept denial is asked for again")
			}
			later(p, 61*time.Second)
			if resolve(t, p, "no.example.com.", dns.TypeA); queries(up) == before {
				t.Error("a denial is kept for longer than the SOA's minimum")
			}
		},
		"RFC 2782: SRV with its target's addresses": func(t *testing.T) {
			if m := ask(t, p, "_web._tcp.shop.mesos.", dns.TypeSRV, edns(1232)); len(m.Answer) != 2 || len(texts(m.Extra)) != 2 {
				t.Error(m)
			}
		},
		"RFC 3596: AAAA, and NODATA for a name with A only": func(t *testing.T) {
			if m := ask(t, p, "a1.node.mesos.", dns.TypeAAAA); len(m.Answer) != 1 {
				t.Error(m)
			}
			if m := ask(t, p, "c1.node.mesos.", dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
				t.Error(m)
			}
		},
		"RFC 3597: unknown types pass": func(t *testing.T) {
			if m := resolve(t, p, "www.example.com.", 65280); len(m.Answer) != 1 || m.Answer[0].(*dns.RFC3597).Rdata != "010203" {
				t.Error(m)
			}
		},
		"RFC 4035 and RFC 6840: AD to who asks for it, CD comes back": func(t *testing.T) {
			if m := resolve(t, p, "ad.example.com.", dns.TypeA, set(func(m *dns.Msg) { m.AuthenticatedData, m.CheckingDisabled = true, true })); !m.AuthenticatedData || !m.CheckingDisabled {
				t.Error(m)
			}
			if m := resolve(t, p, "ad2.example.com.", dns.TypeA); m.AuthenticatedData || m.CheckingDisabled {
				t.Error(m)
			}
			if m := ask(t, p, "mesos.", dns.TypeNS, set(func(m *dns.Msg) { m.AuthenticatedData = true })); m.AuthenticatedData {
				t.Error(m)
			}
		},
		"RFC 4343: case does not matter and is kept": func(t *testing.T) {
			if m := ask(t, p, "A1.NoDe.mesos.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].Header().Name != "A1.NoDe.mesos." {
				t.Error(m)
			}
		},
		"RFC 4592: wildcards": func(t *testing.T) {
			if m := ask(t, p, "any.apps.mesos.", dns.TypeA); len(m.Answer) != 1 {
				t.Error(m)
			}
		},
		"RFC 5452: a question's port and id cannot be guessed": func(t *testing.T) {
			if l, ok := p.forward.routes.Load().upstreams[0].ways.first.(*links); !ok || maxLinks < 16 || l == nil {
				t.Error("questions do not come from a pool of sockets")
			}
		},
		"RFC 5936: no transfer to those who are not listed": func(t *testing.T) {
			if m, _, err := (&dns.Client{Net: "tcp"}).Exchange(new(dns.Msg).SetAxfr("mesos."), at); err != nil || m.Rcode != dns.RcodeRefused {
				t.Error(m, err)
			}
		},
		"RFC 6604: the RCODE is that of a chain's end": func(t *testing.T) {
			if m := ask(t, p, "dangling.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) != 1 {
				t.Error(m)
			}
		},
		"RFC 6761 and RFC 7686: localhost, invalid and onion stay here": func(t *testing.T) {
			before := queries(up)
			if m := resolve(t, p, "x.localhost.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "127.0.0.1" {
				t.Error(m)
			}
			for _, name := range []string{"x.invalid.", "x.onion."} {
				if m := resolve(t, p, name, dns.TypeA); m.Rcode != dns.RcodeNameError {
					t.Error(m)
				}
			}
			if queries(up) != before {
				t.Error("an upstream was asked")
			}
		},
		"RFC 6891: OPT if asked for, BADVERS, 1232": func(t *testing.T) {
			if m := ask(t, p, "mesos.", dns.TypeNS); m.IsEdns0() != nil {
				t.Error(m)
			}
			m := ask(t, p, "mesos.", dns.TypeNS, set(func(m *dns.Msg) { m.SetEdns0(4096, true); m.IsEdns0().SetVersion(1) }))
			if opt := m.IsEdns0(); m.Rcode != dns.RcodeBadVers || opt == nil || opt.UDPSize() != 1232 || opt.Version() != 0 {
				t.Error(m)
			}
		},
		"RFC 7873: an unknown or foreign cookie does no harm": func(t *testing.T) {
			cookie := set(func(m *dns.Msg) {
				m.SetEdns0(1232, false)
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
			})
			if m := ask(t, p, "mesos.", dns.TypeNS, cookie); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
				t.Error(m)
			}
		},
		"RFC 8020: what is below a name that is denied does not exist": func(t *testing.T) {
			resolve(t, p, "no.example.com.", dns.TypeA)
			before := queries(up)
			if m := resolve(t, p, "below.no.example.com.", dns.TypeTXT); m.Rcode != dns.RcodeNameError || queries(up) != before {
				t.Error(m)
			}
		},
		"RFC 8482: little for ANY": func(t *testing.T) {
			if m := ask(t, p, "a1.node.mesos.", dns.TypeANY); len(m.Answer) != 1 {
				t.Error(m)
			}
		},
		"RFC 8906: no silence for odd questions": func(t *testing.T) {
			for opcode, rcode := range map[int]int{dns.OpcodeNotify: dns.RcodeNotImplemented, dns.OpcodeUpdate: dns.RcodeNotImplemented, dns.OpcodeStatus: dns.RcodeNotImplemented, 15: dns.RcodeNotImplemented} {
				if m := ask(t, p, "mesos.", dns.TypeSOA, set(func(m *dns.Msg) { m.Opcode = opcode })); m.Rcode != rcode || m.Opcode != opcode {
					t.Error(m)
				}
			}
		},
		"RFC 8914: a failure gives its reason": func(t *testing.T) {
			if m := resolve(t, p, "fail.example.com.", dns.TypeA, edns(1232)); m.Rcode != dns.RcodeServerFailure || reason(m) < 0 {
				t.Error(m)
			}
		},
		"RFC 9460: HTTPS passes": func(t *testing.T) {
			if m := resolve(t, p, "www.example.com.", dns.TypeHTTPS); len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), `port="8443"`) {
				t.Error(m)
			}
		},
		"RFC 9520: a failure is kept for a moment": func(t *testing.T) {
			resolve(t, p, "fail.example.net.", dns.TypeA)
			before := queries(up)
			if m := resolve(t, p, "fail.example.net.", dns.TypeA); m.Rcode != dns.RcodeServerFailure || queries(up) != before {
				t.Errorf("%v after %d more questions", m, queries(up)-before)
			}
		},
	} {
		t.Run(name, test)
	}
	// It goes last: all upstreams fail from here on.
	t.Run("RFC 8767: an old answer serves while no upstream does", func(t *testing.T) {
		var down atomic.Bool
		weak := newUpstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
			if !down.Load() {
				answering(dns.RcodeSuccess, "%s 60 IN A 192.0.2.7")(w, r)
			}
		})
		p := cluster(t, weak)
		resolve(t, p, "www.example.com.", dns.TypeA)
		down.Store(true)
		later(p, 2*time.Minute)
		if m := resolve(t, p, "www.example.com.", dns.TypeA); len(m.Answer) != 1 || m.Answer[0].Header().Ttl > 30 {
			t.Error(m)
		}
	})
}
