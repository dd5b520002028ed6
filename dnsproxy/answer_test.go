package dnsproxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// soaOf checks the SOA that a denial must carry and gives its owner.
func soaOf(t *testing.T, m *dns.Msg) string {
	t.Helper()
	if len(m.Ns) != 1 {
		t.Fatalf("authority has %d records, want the SOA: %v", len(m.Ns), m)
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok || soa.Hdr.Ttl > 5 || soa.Minttl > 5 || soa.Serial != 41 {
		t.Fatalf("got %v, want an SOA with serial 41 and a negative TTL of at most 5", m.Ns[0])
	}
	return soa.Hdr.Name
}

func TestDenialsSayWhatIsMissing(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	const aaaa, a = dns.TypeAAAA, dns.TypeA
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		zone  string
	}{
		{"web.shop.vip.weir.internal.", aaaa, dns.RcodeSuccess, "weir.internal."}, // NODATA: the name has an A
		{"shop.vip.weir.internal.", a, dns.RcodeSuccess, "weir.internal."},        // empty non-terminal
		{"_tcp.shop.mesos.", dns.TypeSRV, dns.RcodeSuccess, "mesos."},
		{"nothing.weir.internal.", a, dns.RcodeNameError, "weir.internal."},
		{"x.web.shop.vip.weir.internal.", a, dns.RcodeNameError, "weir.internal."},
		{"example.com.mesos.", a, dns.RcodeNameError, "mesos."},
		{"11.0.80.10.in-addr.arpa.", a, dns.RcodeSuccess, "11.0.80.10.in-addr.arpa."},
		{"x.11.0.80.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "11.0.80.10.in-addr.arpa."},
		{"weir.internal.", a, dns.RcodeSuccess, "weir.internal."},
		{"mesos.", dns.TypeMX, dns.RcodeSuccess, "mesos."},
	} {
		m := ask(t, p, c.name, c.qtype)
		if m.Rcode != c.rcode || len(m.Answer) != 0 || !m.Authoritative {
			t.Errorf("%s: got %v, want %s", c.name, m, dns.RcodeToString[c.rcode])
		} else if zone := soaOf(t, m); zone != c.zone {
			t.Errorf("%s: the SOA is that of %s, want %s", c.name, zone, c.zone)
		}
	}
}

func TestApexHasSOAAndNS(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	for _, d := range []string{"weir.internal.", "mesos."} {
		m := ask(t, p, d, dns.TypeSOA)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.SOA).Ns != "ns."+d || m.Answer[0].(*dns.SOA).Serial != 41 {
			t.Errorf("SOA of %s: got %v", d, m)
		}
		m = ask(t, p, d, dns.TypeNS)
		if got := texts(m.Extra); len(m.Answer) != 1 || !slices.Equal(got, []string{"ns." + d + " A 169.254.53.53"}) {
			t.Errorf("NS of %s: got %v", d, m)
		}
	}
}

func TestWildcards(t *testing.T) {
	s := fleet()
	s.Records = append(s.Records, api.Record{Name: "deep.host.apps", Type: api.RecordTXT, Data: []string{"x"}})
	p := proxyOf(t, compile(t, s, options()))
	for name, want := range map[string]int{ // RFC 4592, 2.2.1
		"any.apps.weir.internal.":      1,
		"a.b.c.apps.weir.internal.":    1,
		"*.apps.weir.internal.":        1,
		"host.apps.weir.internal.":     0, // exists as an empty non-terminal
		"x.host.apps.weir.internal.":   -1,
		"deep.host.apps.weir.internal": 0,
		"apps.weir.internal.":          0,
	} {
		m := ask(t, p, dns.Fqdn(name), dns.TypeA)
		switch {
		case want == 1 && (len(m.Answer) != 1 || m.Answer[0].Header().Name != name):
			t.Errorf("%s: got %v, want the wildcard's address under the asked name", name, m)
		case want < 1 && (len(m.Answer) != 0 || (m.Rcode == dns.RcodeNameError) != (want < 0)):
			t.Errorf("%s: got %v", name, m)
		}
	}
	if m := ask(t, p, "any.apps.weir.internal.", dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("another type at a wildcard: got %v, want NODATA", m)
	}
}

func TestAliasesAreFollowed(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	m := ask(t, p, "alias.mesos.", dns.TypeA)
	want := []string{"alias.mesos. CNAME alias2.mesos.", "alias2.mesos. CNAME web.shop.vip.mesos.", "web.shop.vip.mesos. A 198.18.0.10"}
	if got := texts(m.Answer); !slices.Equal(got, want) || m.Rcode != dns.RcodeSuccess {
		t.Errorf("got %v, want %v", got, want)
	}
	if m := ask(t, p, "alias.mesos.", dns.TypeCNAME); len(m.Answer) != 1 {
		t.Errorf("a CNAME asked for: got %v, want it alone", m)
	}
	if m := ask(t, p, "alias.mesos.", dns.TypeAAAA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 2 || soaOf(t, m) != "mesos." {
		t.Errorf("an alias to NODATA: got %v", m)
	}
	// RFC 6604: the last name's RCODE.
	if m := ask(t, p, "dangling.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) != 1 || soaOf(t, m) != "mesos." {
		t.Errorf("an alias to nothing: got %v", m)
	}
	if m := ask(t, p, "outside.mesos.", dns.TypeA); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Errorf("an alias to another's name: got %v, want it alone", m)
	}
}

func TestReverseNames(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	for address, want := range map[string]string{
		"10.80.0.11": "a1.node.weir.internal.", "198.18.0.10": "web.shop.vip.weir.internal.", "fd00::11": "a1.node.weir.internal.",
		"10.80.0.12": "web.shop.weir.internal.", "169.254.53.53": "ns.weir.internal.",
	} {
		name, _ := dns.ReverseAddr(address)
		if m := ask(t, p, name, dns.TypePTR); len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != want || !m.Authoritative {
			t.Errorf("%s: got %v, want %s", address, m, want)
		}
	}
	// No upstream: what is not ours is refused, not denied.
	if m := ask(t, p, "1.0.0.9.in-addr.arpa.", dns.TypePTR); m.Rcode != dns.RcodeRefused {
		t.Errorf("a foreign address: got %v, want REFUSED", m)
	}
}

func TestCaseOfTheQuestionIsKept(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	const name = "WeB.shOP.viP.WEIR.Internal."
	m := ask(t, p, name, dns.TypeA)
	if len(m.Answer) != 1 || m.Question[0].Name != name || m.Answer[0].Header().Name != name {
		t.Errorf("got %v", m)
	}
}

func TestANYIsMinimal(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()), netip.MustParseAddrPort("127.0.0.1:9"))
	if m := ask(t, p, "a1.node.mesos.", dns.TypeANY); len(m.Answer) != 1 {
		t.Errorf("got %v, want one record set", m)
	}
	m := ask(t, p, "example.com.", dns.TypeANY)
	if h, ok := m.Answer[0].(*dns.HINFO); !ok || h.Cpu != "RFC8482" {
		t.Errorf("got %v, want HINFO", m)
	}
}

func TestSizesAndTruncation(t *testing.T) {
	s := fleet()
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("10.9.0.%d", i))
	}
	s.Records = append(s.Records, api.Record{Name: "many", Type: api.RecordA, Data: many})
	p := proxyOf(t, compile(t, s, options()))
	for _, c := range []struct {
		size  uint16 // 0: no EDNS
		limit int
	}{{0, 512}, {100, 512}, {512, 512}, {800, 800}, {1232, 1232}, {4096, 1232}, {65535, 1232}} {
		q := new(dns.Msg).SetQuestion("many.weir.internal.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(c.size, true)
		}
		packet, _ := q.Pack()
		wire := raw(p, packet)
		m := unpack(t, wire)
		if len(wire) > c.limit || len(wire) < c.limit-16-optSize || !m.Truncated {
			t.Errorf("EDNS size %d: got %d bytes, TC %v; want TC and nearly %d", c.size, len(wire), m.Truncated, c.limit)
		}
		if opt := m.IsEdns0(); (opt != nil) != (c.size > 0) {
			t.Errorf("EDNS size %d: the answer's OPT is %v", c.size, opt)
		} else if opt != nil && (opt.UDPSize() != 1232 || !opt.Do() || opt.Version() != 0) {
			t.Errorf("got %v, want our size of 1232 and the client's DO", opt)
		}
	}
	w := workerOf(p)
	w.from.tcp = true
	packet, _ := new(dns.Msg).SetQuestion("many.weir.internal.", dns.TypeA).Pack()
	out := make([]byte, tcpSize)
	n, _ := w.serve(packet, out, 0)
	if m := unpack(t, out[:n]); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("over TCP: %d answers, TC %v", len(m.Answer), m.Truncated)
	}
}

func TestAdditionalRecordsDoNotTruncate(t *testing.T) {
	s := fleet()
	web := &s.Services[3]
	web.Backends = nil
	for i := range 7 {
		web.Backends = append(web.Backends, backend(fmt.Sprintf("10.80.1.%d:80", i)))
	}
	p := proxyOf(t, compile(t, s, options()))
	packet, _ := new(dns.Msg).SetQuestion("_web._tcp.shop.weir.internal.", dns.TypeSRV).Pack()
	wire := raw(p, packet)
	m := unpack(t, wire)
	if m.Truncated || len(m.Answer) != 7 || len(m.Extra) == 7 || len(m.Extra) == 0 || len(wire) > 512 {
		t.Errorf("%d bytes, TC %v, %d answers, %d additional; want all answers and what fits", len(wire), m.Truncated, len(m.Answer), len(m.Extra))
	}
}

func TestRotationIsFair(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	first := map[string]int{}
	const rounds = 4000
	for range rounds {
		// Clients ask in pairs: a counter would serve each type every second turn.
		m := ask(t, p, "dir.weir.internal.", dns.TypeA)
		ask(t, p, "dir.weir.internal.", dns.TypeAAAA)
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	for address, n := range first {
		if n < rounds*45/100 || len(first) != 2 {
			t.Errorf("%s came first %d times of %d: %v", address, n, rounds, first)
		}
	}
}

func TestOddQueriesGetAnswers(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	q := func(change func([]byte) []byte) []byte {
		m := new(dns.Msg).SetQuestion("web.shop.vip.weir.internal.", dns.TypeA)
		m.Id = 0x1234
		packet, _ := m.Pack()
		return change(packet)
	}
	opt := func(version byte, data ...byte) []byte {
		return append([]byte{0, 0, 41, 4, 0xD0, 0, version, 0, 0, 0, byte(len(data))}, data...)
	}
	set := func(at int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], v); return b }
	}
	add := func(count byte, tail []byte) func([]byte) []byte {
		return func(b []byte) []byte { b[11] = count; return append(b, tail...) }
	}
	for name, c := range map[string]struct {
		packet []byte
		rcode  int
	}{
		"opcode IQUERY":        {q(set(2, 1<<3)), dns.RcodeNotImplemented},
		"opcode STATUS":        {q(set(2, 2<<3)), dns.RcodeNotImplemented},
		"opcode NOTIFY":        {q(set(2, 4<<3)), dns.RcodeNotImplemented},
		"opcode UPDATE":        {q(set(2, 5<<3)), dns.RcodeNotImplemented},
		"class CH":             {q(func(b []byte) []byte { b[len(b)-1] = 3; return b }), dns.RcodeRefused},
		"AXFR":                 {q(func(b []byte) []byte { b[len(b)-3] = 252; return b }), dns.RcodeRefused},
		"MAILB":                {q(func(b []byte) []byte { b[len(b)-3] = 253; return b }), dns.RcodeNotImplemented},
		"no question":          {q(set(4, 0, 0)), dns.RcodeFormatError},
		"two questions":        {q(set(4, 0, 2)), dns.RcodeFormatError},
		"an answer":            {q(set(6, 0, 1)), dns.RcodeFormatError},
		"an authority":         {q(set(8, 0, 1)), dns.RcodeFormatError},
		"header alone":         {[]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, dns.RcodeFormatError},
		"name is cut":          {q(func(b []byte) []byte { return b[:20] }), dns.RcodeFormatError},
		"type is cut":          {q(func(b []byte) []byte { return b[:len(b)-3] }), dns.RcodeFormatError},
		"pointer to itself":    {q(set(12, 0xC0, 12)), dns.RcodeFormatError},
		"label type 01":        {q(set(12, 0x41)), dns.RcodeFormatError},
		"EDNS version 1":       {q(add(1, opt(1))), dns.RcodeBadVers},
		"EDNS unknown option":  {q(add(1, opt(0, 0xFD, 0xE9, 0, 1, 7))), dns.RcodeSuccess},
		"EDNS torn option":     {q(add(1, opt(0, 0xFD, 0xE9, 0, 9))), dns.RcodeFormatError},
		"EDNS twice":           {q(add(2, append(opt(0), opt(0)...))), dns.RcodeFormatError},
		"EDNS with a name":     {q(add(1, append([]byte{1, 'x'}, opt(0)...))), dns.RcodeFormatError},
		"EDNS missing":         {q(add(1, nil)), dns.RcodeFormatError},
		"additional loop":      {q(add(1, []byte{0xC0, 46, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0})), dns.RcodeSuccess},
		"additional too long":  {q(add(1, []byte{0, 0, 1, 0, 1, 0, 0, 0, 0, 9, 9})), dns.RcodeFormatError},
		"behind the message":   {q(func(b []byte) []byte { return append(b, 1, 2, 3) }), dns.RcodeSuccess},
		"name of 256 bytes":    {longName(256), dns.RcodeFormatError},
		"name of 255 bytes":    {longName(255), dns.RcodeRefused},
		"OPT as question type": {q(func(b []byte) []byte { b[len(b)-3] = 41; return b }), dns.RcodeFormatError},
	} {
		wire := raw(p, c.packet)
		if len(wire) < headerSize || wire[0] != 0x12 || wire[1] != 0x34 {
			t.Errorf("%s: got %x, want an answer with the query's id", name, wire)
			continue
		}
		m := unpack(t, wire)
		rcode := m.Rcode
		if m.Rcode != c.rcode || !m.Response || m.Opcode != int(c.packet[2]>>3&0xF) {
			t.Errorf("%s: got %s, opcode %d, QR %v; want %s", name, dns.RcodeToString[rcode], m.Opcode, m.Response, dns.RcodeToString[c.rcode])
		}
		if m.RecursionDesired != (c.packet[2]&1 != 0) {
			t.Errorf("%s: RD is not the query's", name)
		}
	}
	for name, packet := range map[string][]byte{"nothing": {}, "eleven bytes": make([]byte, 11), "a response": q(set(2, 0x80))} {
		if wire := raw(p, packet); len(wire) > 0 {
			t.Errorf("%s: got %x, want silence", name, wire)
		}
	}
	if n := p.metrics.panics.Load(); n > 0 {
		t.Errorf("%d panics", n)
	}
}

func longName(size int) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for left := size - 1; left > 0; {
		n := min(63, left-1)
		b = append(append(b, byte(n)), strings.Repeat("x", n)...)
		left -= n + 1
	}
	return append(b, 0, 0, 1, 0, 1)
}

func TestBitsOfTheQueryComeBack(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	m := ask(t, p, "mesos.", dns.TypeNS, func(m *dns.Msg) { m.CheckingDisabled, m.AuthenticatedData, m.RecursionDesired = true, true, false })
	if !m.CheckingDisabled || m.AuthenticatedData || m.RecursionDesired || m.RecursionAvailable || m.Zero {
		t.Errorf("got %v, want CD as asked, and no AD, RD, RA", m)
	}
}

func TestBeforeTheFirstTableNothingIsDenied(t *testing.T) {
	p := proxyOf(t, nil)
	if m := ask(t, p, "web.shop.vip.weir.internal.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v, want SERVFAIL", m)
	}
}

func TestHitAllocatesNothing(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	w, out := workerOf(p), make([]byte, udpSize)
	for _, c := range []struct {
		name  string
		qtype uint16
	}{{"web.shop.vip.weir.internal.", dns.TypeA}, {"_web._tcp.shop.weir.internal.", dns.TypeSRV}, {"nothing.weir.internal.", dns.TypeA}, {"alias.mesos.", dns.TypeA}} {
		m := new(dns.Msg).SetQuestion(c.name, c.qtype)
		m.SetEdns0(1232, false)
		packet, _ := m.Pack()
		if n := testing.AllocsPerRun(200, func() { w.serve(packet, out, 0) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	s := fleet()
	for i := range 10_000 {
		s.Records = append(s.Records, api.Record{Name: fmt.Sprintf("host%d.rack", i), Type: api.RecordA, Data: []string{"10.0.0.1"}})
	}
	p := proxyOf(b, compile(b, s, options()))
	w, out := workerOf(p), make([]byte, udpSize)
	for _, c := range []struct {
		name  string
		qtype uint16
	}{{"web.shop.vip.weir.internal.", dns.TypeA}, {"_web._tcp.shop.weir.internal.", dns.TypeSRV}, {"nothing.weir.internal.", dns.TypeA}} {
		m := new(dns.Msg).SetQuestion(c.name, c.qtype)
		m.SetEdns0(1232, false)
		packet, _ := m.Pack()
		b.Run(dns.TypeToString[c.qtype]+"/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				binary.BigEndian.PutUint16(packet, uint16(b.N))
				w.serve(packet, out, 0)
			}
		})
	}
}
