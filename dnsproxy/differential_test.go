package dnsproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// reference is a second implementation of an authoritative server: RFC 1034,
// 4.3.2, and RFC 4592 by the book, on the library's types, over the zone as it
// was transferred.
type reference struct {
	apex    string
	soa     dns.RR
	records map[string]map[uint16][]dns.RR
	exists  map[string]bool // with the names between others
}

func newReference(apex string, records []dns.RR) *reference {
	z := &reference{apex: apex, soa: records[0], records: map[string]map[uint16][]dns.RR{}, exists: map[string]bool{apex: true}}
	for _, rr := range records[:len(records)-1] {
		h := rr.Header()
		if z.records[h.Name] == nil {
			z.records[h.Name] = map[uint16][]dns.RR{}
		}
		z.records[h.Name][h.Rrtype] = append(z.records[h.Name][h.Rrtype], rr)
		for name := h.Name; name != apex; name = name[strings.IndexByte(name, '.')+1:] {
			z.exists[name] = true
		}
	}
	return z
}

// source is the name of which the records answer: itself, or the wildcard at its
// closest encloser; "" when there is none.
func (z *reference) source(name string) string {
	if z.exists[name] {
		return name
	}
	for at := name; at != z.apex; {
		at = at[strings.IndexByte(at, '.')+1:]
		if z.exists[at] {
			if z.exists["*."+at] {
				return "*." + at
			}
			return ""
		}
	}
	return ""
}

func (z *reference) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	owner, qtype := r.Question[0].Name, r.Question[0].Qtype
	for range 10 {
		name := strings.ToLower(owner)
		if !dns.IsSubDomain(z.apex, name) {
			w.WriteMsg(m)
			return
		}
		source := z.source(name)
		if source == "" {
			m.Rcode = dns.RcodeNameError
			break
		}
		sets := z.records[source]
		rtype := qtype
		if len(sets[dns.TypeCNAME]) > 0 {
			rtype = dns.TypeCNAME
		}
		for _, rr := range sets[rtype] {
			rr = dns.Copy(rr)
			rr.Header().Name = owner
			m.Answer = append(m.Answer, rr)
			m.Extra = append(m.Extra, z.additional(rr, m.Extra)...)
		}
		if rtype != dns.TypeCNAME || qtype == dns.TypeCNAME {
			if len(sets[rtype]) == 0 {
				break
			}
			w.WriteMsg(m)
			return
		}
		owner = sets[dns.TypeCNAME][0].(*dns.CNAME).Target
	}
	m.Ns = append(m.Ns, z.soa)
	w.WriteMsg(m)
}

func (z *reference) additional(rr dns.RR, have []dns.RR) (all []dns.RR) {
	target := ""
	switch rr := rr.(type) {
	case *dns.SRV:
		target = rr.Target
	case *dns.NS:
		target = rr.Ns
	default:
		return nil
	}
	for _, rtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, a := range z.records[target][rtype] {
			if !slices.ContainsFunc(have, func(h dns.RR) bool { return dns.IsDuplicate(h, a) }) {
				all = append(all, a)
			}
		}
	}
	return all
}

// inWords is an answer without what may differ: its order and its id.
func inWords(m *dns.Msg) string {
	section := func(rrs []dns.RR, isAsked bool) []string {
		all := []string{}
		for _, rr := range rrs {
			if !isAsked { // such a name may point into the question, and have its letters
				rr.Header().Name = strings.ToLower(rr.Header().Name)
			}
			if rr.Header().Rrtype != dns.TypeOPT {
				all = append(all, rr.String())
			}
		}
		slices.Sort(all)
		return all
	}
	edns := ""
	if opt := m.IsEdns0(); opt != nil {
		edns = fmt.Sprint(opt.UDPSize(), opt.Do())
	}
	return fmt.Sprint(dns.RcodeToString[m.Rcode], m.Authoritative, m.Truncated, m.RecursionAvailable, m.RecursionDesired, m.Question, section(m.Answer, true), section(m.Ns, false), section(m.Extra, false), edns)
}

// Two implementations that share no code are asked the same.
func TestAnswersAreThoseOfAnotherImplementation(t *testing.T) {
	s := fleet()
	s.Records = append(s.Records, api.Record{Name: "deep.host.apps", Type: api.RecordTXT, Data: []string{"x"}}, api.Record{Name: "*.w.apps", Type: api.RecordCNAME, Data: []string{"web.shop.vip"}})
	p := proxyOf(t, compile(t, s, taskOptions()))
	if err := p.SetForwarding(Forwarding{Transfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	at := running(t, p).String()
	for _, apex := range []string{"weir.internal.", "mesos.", "thisdcos.directory.", "spartan."} {
		records := transferred(t, apex, at)
		z := newReference(apex, records)
		peer := newUpstream(t, z.ServeDNS)
		differ := 0
		for _, q := range questions(z) {
			got, want := exchange(t, q, at), exchange(t, q, peer.at.String())
			if got != want && differ < 10 {
				differ++
				t.Errorf("%v:\ngot  %s\nwant %s", q.Question[0], got, want)
			}
		}
	}
}

func transferred(t *testing.T, apex, at string) (records []dns.RR) {
	t.Helper()
	ch, err := (&dns.Transfer{}).In(new(dns.Msg).SetAxfr(apex), at)
	if err != nil {
		t.Fatal(err)
	}
	for e := range ch {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
		records = append(records, e.RR...)
	}
	return records
}

// questions for every name, for names above, beside and below it, and in other
// letters.
func questions(z *reference) (all []*dns.Msg) {
	names := map[string]bool{}
	for name := range z.exists {
		names[name] = true
		names["x."+name], names["a.b."+name], names["zz-"+name] = true, true, true
		names[strings.ToUpper(name)] = true
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT, dns.TypeCNAME, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeHTTPS, 65280}
	for i, name := range slices.Sorted(maps.Keys(names)) {
		if len(name) > 250 || !dns.IsSubDomain(z.apex, strings.ToLower(name)) {
			continue
		}
		for j, qtype := range types {
			m := new(dns.Msg).SetQuestion(name, qtype)
			if m.RecursionDesired = (i+j)%3 > 0; (i+j)%2 == 0 {
				m.SetEdns0(1232, (i+j)%4 == 0)
			}
			all = append(all, m)
		}
	}
	return all
}

func exchange(t *testing.T, q *dns.Msg, at string) string {
	t.Helper()
	return inWords(exchangeMessage(t, q, at))
}

// exchangeMessage asks over TCP, so that nothing is cut.
func exchangeMessage(t *testing.T, q *dns.Msg, at string) *dns.Msg {
	t.Helper()
	conn := conns[t][at]
	if conn == nil {
		var err error
		if conn, err = dns.Dial("tcp", at); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if conns[t] == nil {
			conns[t] = map[string]*dns.Conn{}
			t.Cleanup(func() { delete(conns, t) })
		}
		conns[t][at] = conn
	}
	m, _, err := (&dns.Client{}).ExchangeWithConn(q, conn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// conns are connections that stay open during a test.
var conns = map[*testing.T]map[string]*dns.Conn{}
