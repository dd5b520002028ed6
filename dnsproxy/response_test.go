package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// packed is an upstream's reply to www.example.com A.
func packed(t testing.TB, compress bool, change func(*dns.Msg), records ...string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	m.Response, m.Compress = true, compress
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if rr.Header().Rrtype == dns.TypeSOA || rr.Header().Rrtype == dns.TypeNS {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	if change != nil {
		change(m)
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func wwwQuestion() *question {
	return &question{name: []byte("\x03www\x07example\x03com\x00"), qtype: dns.TypeA}
}

// servedFrom is what a client that asks for a name gets from a kept reply.
func servedFrom(t testing.TB, c *cached, name string) *dns.Msg {
	t.Helper()
	packet, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	var q query
	if q.parse(packet) != dns.RcodeSuccess {
		t.Fatal("bad question")
	}
	out := make([]byte, tcpSize)
	return unpack(t, out[:c.answer(&q, out, tcpSize, 0, 0)])
}

func readResponse(q *question, wire []byte) (*response, error) {
	r := new(response)
	return r, r.readFrom(q, wire)
}

func TestRepliesAreKeptWithoutWhatWasNotAskedFor(t *testing.T) {
	additional := func(m *dns.Msg) {
		rr, _ := dns.NewRR("evil.example. 60 IN A 192.0.2.66")
		m.Extra = append(m.Extra, rr)
		m.SetEdns0(1232, false)
	}
	for name, c := range map[string]struct {
		records, want []string
	}{
		"one":        {[]string{"www.example.com. 60 IN A 192.0.2.1"}, []string{"www.example.com. A 192.0.2.1"}},
		"authority":  {[]string{"www.example.com. 60 IN A 192.0.2.1", "example.com. 60 IN NS ns.example.com."}, []string{"www.example.com. A 192.0.2.1"}},
		"chain":      {[]string{"www.example.com. 60 IN CNAME a.example.com.", "a.example.com. 60 IN CNAME b.example.net.", "b.example.net. 60 IN A 192.0.2.1"}, []string{"www.example.com. CNAME a.example.com.", "a.example.com. CNAME b.example.net.", "b.example.net. A 192.0.2.1"}},
		"disordered": {[]string{"a.example.com. 60 IN A 192.0.2.1", "www.example.com. 60 IN CNAME a.example.com."}, []string{"a.example.com. A 192.0.2.1", "www.example.com. CNAME a.example.com."}},
		"forged":     {[]string{"www.example.com. 60 IN A 192.0.2.1", "bank.example. 60 IN A 192.0.2.66"}, []string{"www.example.com. A 192.0.2.1"}},
		"alias":      {[]string{"com. 60 IN DNAME net.", "www.example.com. 60 IN CNAME www.example.net.", "www.example.net. 60 IN A 192.0.2.1"}, []string{"com. DNAME net.", "www.example.com. CNAME www.example.net.", "www.example.net. A 192.0.2.1"}},
	} {
		for _, compress := range []bool{true, false} {
			r, err := readResponse(wwwQuestion(), packed(t, compress, additional, c.records...))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			kept, err := newCached(wwwQuestion(), r, "up", 0)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m := servedFrom(t, kept, "WWW.example.com.")
			if got := texts(m.Answer); m.Question[0].Name != "WWW.example.com." || len(m.Extra)+len(m.Ns) > 0 {
				t.Errorf("%s: got %v", name, m)
			} else if got[0] = string(bytes.ReplaceAll([]byte(got[0]), []byte("WWW"), []byte("www"))); !slices.Equal(got, c.want) && !slices.Equal(lowered(got), c.want) {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
			if !r.answered || kept.expires != 60e9 {
				t.Errorf("%s: answered %v, expires %d", name, r.answered, kept.expires)
			}
		}
	}
}

func lowered(all []string) (out []string) {
	for _, s := range all {
		out = append(out, string(bytes.ReplaceAll([]byte(s), []byte("WWW"), []byte("www"))))
	}
	return out
}

func TestOddCaseNeverReachesAnotherClient(t *testing.T) {
	odd := func(m *dns.Msg) {
		m.Question[0].Name = "wWw.ExAmPlE.cOm."
		m.Answer[0].Header().Name = "wWw.ExAmPlE.cOm."
	}
	for _, compress := range []bool{true, false} {
		r, err := readResponse(wwwQuestion(), packed(t, compress, odd, "www.example.com. 60 IN A 192.0.2.1"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCached(wwwQuestion(), r, "up", 0)
		if err != nil {
			t.Fatal(err)
		}
		if m := servedFrom(t, c, "www.example.com."); m.Answer[0].Header().Name != "www.example.com." {
			t.Errorf("got %v", m)
		}
	}
}

func TestMalformedRepliesAreNotPassedOn(t *testing.T) {
	whole := packed(t, true, nil, "www.example.com. 60 IN CNAME a.example.com.", "a.example.com. 60 IN A 192.0.2.1")
	end := headerSize + len("\x03www\x07example\x03com\x00") + 4
	set := func(at int, v ...byte) []byte {
		b := slices.Clone(whole)
		copy(b[at:], v)
		return b
	}
	for name, wire := range map[string][]byte{
		"cut":                   whole[:len(whole)-1],
		"owner leads to itself": set(end, 0xC0, byte(end)),
		"owner leads ahead":     set(end, 0xC0, byte(end+20)),
		"owner in the header":   set(end, 0xC0, 3),
		"label type 01":         set(end, 0x40),
		"data too long":         set(end+10, 0xFF, 0xFF),
		"CNAME of two names":    set(end+11, 5),
		"too many records":      set(6, 0xFF, 0xFF),
		"one record more":       set(7, 3),
		"A of 3 bytes":          set(len(whole)-6, 0, 3),
	} {
		if r, err := readResponse(wwwQuestion(), wire); err == nil {
			t.Errorf("%s: is read as %+v", name, r)
		}
	}
}

func TestDenialFitsBehindLongerNames(t *testing.T) {
	for _, compress := range []bool{true, false} {
		wire := packed(t, compress, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, "example.com. 900 IN SOA ns.example.com. root.example.com. 7 2 3 4 30")
		r, err := readResponse(wwwQuestion(), wire)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCached(wwwQuestion(), r, "up", 0)
		if err != nil || !c.denies || c.expires != 30e9 {
			t.Fatalf("got %+v, %v", c, err)
		}
		for _, name := range []string{"www.example.com.", "a.b.c.d.e.www.example.com."} {
			m := servedFrom(t, c, name)
			soa, ok := m.Ns[0].(*dns.SOA)
			if !ok || m.Rcode != dns.RcodeNameError || soa.Hdr.Name != "example.com." || soa.Ns != "ns.example.com." || soa.Mbox != "root.example.com." || soa.Serial != 7 || soa.Minttl != 30 || soa.Hdr.Ttl != 900 {
				t.Errorf("%s: got %v", name, m)
			}
		}
	}
}

func replySeeds(t testing.TB) [][]byte {
	soa := "example.com. 900 IN SOA ns.example.com. root.example.com. 7 2 3 4 30"
	return [][]byte{
		packed(t, true, nil, "www.example.com. 60 IN A 192.0.2.1"),
		packed(t, true, func(m *dns.Msg) { m.SetEdns0(1232, true) }, "www.example.com. 60 IN CNAME b.example.com.", "b.example.com. 60 IN A 192.0.2.1", "b.example.com. 60 IN A 192.0.2.2"),
		packed(t, false, nil, "x.example.com. 60 IN A 192.0.2.1", "www.example.com. 60 IN A 192.0.2.2"),
		packed(t, true, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, soa),
		packed(t, true, nil, soa),
		packed(t, true, nil, "www.example.com. 60 IN MX 5 mail.example.com.", "www.example.com. 60 IN SRV 1 2 3 b.example.com.", "www.example.com. 60 IN TXT x", "www.example.com. 60 IN AAAA 2001:db8::1"),
	}
}

// checkReply reads a reply that may be hostile, and that what is kept of it is
// well formed behind every question.
func checkReply(t testing.TB, wire []byte, do bool) {
	q := wwwQuestion()
	q.do = do
	sent := q.pack(dress{edns: true})
	if len(wire) < headerSize {
		return
	}
	wire = slices.Clone(wire)
	copy(wire, sent[:2])
	wire[2], wire[4], wire[5] = wire[2]&7|0x80, 0, 1
	if len(wire) >= headerSize+len(q.name)+4 {
		copy(wire[headerSize:], sent[headerSize:headerSize+len(q.name)+4])
	}
	if matches(sent, wire) != exact {
		return
	}
	r, err := readResponse(q, wire)
	if err != nil || r.truncated {
		return
	}
	new(dresser).judge(dress{edns: true, odd: true, cookie: make([]byte, 8)}, exact, r, 0)
	c, err := newCached(q, r, "up", 0)
	if err != nil {
		return
	}
	packet, _ := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).Pack()
	var asked query
	asked.parse(packet)
	out := make([]byte, tcpSize)
	out = out[:c.answer(&asked, out, tcpSize, 5e9, 0)]
	// The skeleton holds: every record is where the counts say.
	at := headerSize + len(q.name) + 4
	for range binary.BigEndian.Uint16(out[6:]) + binary.BigEndian.Uint16(out[8:]) + binary.BigEndian.Uint16(out[10:]) {
		if at = skipName(out, at); at < 0 || at+10 > len(out) {
			t.Fatalf("%x is kept as %x", wire, out)
		}
		at += 10 + int(binary.BigEndian.Uint16(out[at+8:]))
	}
	if at != len(out) {
		t.Fatalf("%x is kept as %x: %d bytes too many", wire, out, len(out)-at)
	}
}

func TestHostileReplies(t *testing.T) {
	r, all := rand.New(rand.NewPCG(5, 6)), replySeeds(t)
	for range 30_000 {
		checkReply(t, mutate(r, all), r.IntN(4) == 0)
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range replySeeds(f) {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(checkReplyFuzz)
}

func checkReplyFuzz(t *testing.T, wire []byte, do bool) { checkReply(t, wire, do) }
