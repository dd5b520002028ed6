package answers

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/dnsproxy"
)

// serve runs the proxy on loopback with the table, and an upstream that is not
// there, so that it has the flag RA.
func serve(t testing.TB, table *dnsproxy.Table) net.Conn {
	t.Helper()
	o := dnsproxy.ServerOptions{
		Listen:          []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Upstreams:       []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")},
		UpstreamTimeout: 50 * time.Millisecond,
	}
	p, err := dnsproxy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(table)
	for range 10 { // the port that TCP picks may be somebody's over UDP
		if err = p.Listen(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if flags, ok := p.DirectFlags(); !ok || flags != 1<<7 {
		t.Fatalf("flags %x, %v", flags, ok)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	conn, err := net.Dial("udp", p.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); cancel(); <-ended })
	return conn
}

// ask gives the server's answer to a packet; nil for none.
func ask(t testing.TB, conn net.Conn, wire []byte, within time.Duration) []byte {
	t.Helper()
	if _, err := conn.Write(wire); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(within))
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil
		}
		if n >= 2 && len(wire) >= 2 && bytes.Equal(buffer[:2], wire[:2]) {
			return buffer[:n]
		}
	}
}

// inOrder sorts the answer section's records of a message, which have one length:
// their order is random.
func inOrder(t testing.TB, wire []byte) []byte {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		t.Fatalf("unpack %x: %v", wire, err)
	}
	if len(m.Answer) < 2 {
		return wire
	}
	at := 12
	for wire[at] != 0 {
		at += 1 + int(wire[at])
	}
	at += 5
	size := 12 + len(rdata(m.Answer[0]))
	c := bytes.Clone(wire)
	var records [][]byte
	for i := range m.Answer {
		records = append(records, wire[at+i*size:at+(i+1)*size])
	}
	slices.SortFunc(records, bytes.Compare)
	copy(c[at:], bytes.Join(records, nil))
	return c
}

func rdata(rr dns.RR) []byte {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.To4()
	case *dns.AAAA:
		return rr.AAAA
	}
	return nil
}

func mixed(name string, r *rand.Rand) string {
	b := []byte(name)
	for i, c := range b {
		if r.IntN(2) == 0 && c >= 'a' && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// What the program answers is, byte for byte, what the proxy answers.
func TestTheKernelsAnswerIsTheProxysOwn(t *testing.T) {
	a := sharedAnswerer(t)
	conn := serve(t, shared.table)
	r := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func(*dns.Msg){
		"plain":        func(*dns.Msg) {},
		"no RD":        func(m *dns.Msg) { m.RecursionDesired = false },
		"CD, AD":       func(m *dns.Msg) { m.CheckingDisabled, m.AuthenticatedData = true, true },
		"AA, TC, RA":   func(m *dns.Msg) { m.Authoritative, m.Truncated, m.RecursionAvailable, m.Zero = true, true, true, true },
		"edns 0":       edns(0, false),
		"edns 512":     edns(512, false),
		"edns 1232":    edns(1232, false),
		"edns 4096 DO": edns(4096, true),
	}
	names := []string{
		"one", "two", "eight", "six", "sixeight", "both", "odd1", "a1.node", "a2.node", "c1.node", "master", "leader", "agent", "ns",
		repeat('x', 63) + "." + repeat('x', 42),
	}
	answered := 0
	for shape, change := range shapes {
		for _, name := range names {
			for _, domain := range []string{".weir.internal.", ".mesos."} {
				for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
					for _, family := range []packet{{from: cli4, to: here4}, {from: cli6, to: here6}} {
						wire := question(t, mixed(name+domain, r), qtype, change)
						family.payload = wire
						word, out := run(t, a, family.frame())
						if word != tcxRedirect {
							if domain == ".weir.internal." {
								t.Errorf("%s, %s%s %d is not answered", shape, name, domain, qtype)
							}
							continue
						}
						answered++
						got, want := inOrder(t, answerIn(t, family, out)), inOrder(t, ask(t, conn, wire, 5*time.Second))
						if !bytes.Equal(got, want) {
							t.Errorf("%s, %s%s %d\n got %x\nwant %x", shape, name, domain, qtype, got, want)
						}
					}
				}
			}
		}
	}
	t.Log(answered, "answers")
}

// Whatever is not a plain question for what is here goes up as it came.
func TestTheUnusualGoesUpUntouched(t *testing.T) {
	a := sharedAnswerer(t)
	one := "one.weir.internal."
	option := func(o dns.EDNS0) func(*dns.Msg) {
		return func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().Option = append(m.IsEdns0().Option, o) }
	}
	plain := question(t, one, dns.TypeA)
	edit := func(wire []byte, change func(b []byte) []byte) []byte { return change(bytes.Clone(wire)) }
	at := func(offset int, value ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[offset:], value); return b }
	}
	for _, c := range []struct {
		name, reason string
		wire         []byte
	}{
		{"a response", "message", question(t, one, dns.TypeA, func(m *dns.Msg) { m.Response = true })},
		{"another opcode", "message", question(t, one, dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })},
		{"no question", "message", edit(plain, at(4, 0, 0))},
		{"two questions", "message", edit(plain, at(4, 0, 2))},
		{"an answer", "message", edit(plain, at(6, 0, 1))},
		{"authority", "message", edit(plain, at(8, 0, 1))},
		{"two additional records", "message", edit(plain, at(10, 0, 2))},
		{"an additional record that is not there", "edns", edit(plain, at(10, 0, 1))},
		{"bytes behind", "message", append(bytes.Clone(plain), 0)},
		{"an OPT record that is not counted", "message", edit(question(t, one, dns.TypeA, edns(1232, false)), at(10, 0, 0))},
		{"cut short", "message", plain[:len(plain)-1]},
		{"cut in the name", "message", plain[:20]},
		{"header alone", "message", plain[:12]},
		{"too long", "message", append(bytes.Clone(plain), make([]byte, 500)...)},
		{"a compression pointer", "name", edit(plain, at(12, 0xC0, 12))},
		{"a name without end", "name", append(plain[:12:12], bytes.Repeat([]byte{1, 'x'}, 70)...)},
		{"a zero within a label", "type", edit(plain, at(14, 0))},
		{"the root", "name", question(t, ".", dns.TypeA)},
		{"chaos", "type", question(t, one, dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })},
		{"ANY", "type", question(t, one, dns.TypeANY)},
		{"SRV", "type", question(t, one, dns.TypeSRV)},
		{"TXT", "type", question(t, "both.weir.internal.", dns.TypeTXT)},
		{"HTTPS", "type", question(t, one, dns.TypeHTTPS)},
		{"a cookie", "edns", question(t, one, dns.TypeA, option(&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}))},
		{"NSID", "edns", question(t, one, dns.TypeA, option(&dns.EDNS0_NSID{Code: dns.EDNS0NSID}))},
		{"ECS", "edns", question(t, one, dns.TypeA, option(&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{10, 0, 0, 0}}))},
		{"padding", "message", question(t, one, dns.TypeA, option(&dns.EDNS0_PADDING{Padding: make([]byte, 128)}))},
		{"EDNS version 1", "edns", question(t, one, dns.TypeA, edns(1232, false), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) })},
		{"an additional A record", "message", question(t, repeat('y', 60)+"."+repeat('y', 60)+".weir.internal.", dns.TypeA, func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "some.where.else.example.", Rrtype: dns.TypeA, Class: 1}, A: net.IP{1, 2, 3, 4}})
		})},
		{"no such name", "name", question(t, "none.weir.internal.", dns.TypeA)},
		{"a name above", "name", question(t, "weir.internal.", dns.TypeA)},
		{"a name outside", "name", question(t, "example.com.", dns.TypeA)},
		{"below a name", "name", question(t, "x."+one, dns.TypeA)},
		{"a wildcard's", "name", question(t, "x.apps.weir.internal.", dns.TypeA)},
		{"an alias", "name", question(t, "alias.weir.internal.", dns.TypeA)},
		{"text only", "name", question(t, "text.weir.internal.", dns.TypeA)},
		{"nine addresses", "records", question(t, "nine.weir.internal.", dns.TypeA)},
		{"a name of more than 128 bytes", "name", question(t, repeat('x', 63)+"."+repeat('x', 50)+".weir.internal.", dns.TypeA)},
	} {
		for _, p := range []packet{{from: cli4, to: here4, payload: c.wire}, {from: cli6, to: here6, payload: c.wire}} {
			before := counters(t, a)
			in := p.frame()
			word, out := run(t, a, in)
			if word != tcxNext || !bytes.Equal(in, out) {
				t.Errorf("%s: word %d\n out %x\n in  %x", c.name, int32(word), out, in)
			}
			after := counters(t, a)
			for reason, n := range after.Passed {
				want := before.Passed[reason]
				if reason == c.reason {
					want++
				}
				if n != want {
					t.Errorf("%s: %d packets were passed for %s, want %d", c.name, n-before.Passed[reason], reason, want-before.Passed[reason])
				}
			}
		}
	}
}

// Each address of a set comes first about equally often, and the others follow
// in their order.
func TestAddressesTakeTurns(t *testing.T) {
	a := sharedAnswerer(t)
	for _, c := range []struct {
		name  string
		qtype uint16
		count int
	}{{"two", dns.TypeA, 2}, {"eight", dns.TypeA, 8}, {"six", dns.TypeAAAA, 3}, {"sixeight", dns.TypeAAAA, 8}} {
		first := map[string]int{}
		const times = 800
		p := packet{from: cli4, to: here4, payload: question(t, c.name+".weir.internal.", c.qtype)}
		var ring string
		for range times {
			_, out := run(t, a, p.frame())
			m := new(dns.Msg)
			if err := m.Unpack(answerIn(t, p, out)); err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, rr := range m.Answer {
				all = append(all, string(rdata(rr)))
			}
			first[all[0]]++
			if ring == "" {
				ring = strings.Join(append(all, all...), "|")
			}
			if len(all) != c.count || !strings.Contains(ring, strings.Join(all, "|")) {
				t.Fatalf("%s: %d records out of their order: %q of %q", c.name, len(all), all, ring)
			}
		}
		for one, n := range first {
			if want := times / c.count; n < want/2 || n > 2*want || len(first) != c.count {
				t.Errorf("%s: %x is first %d times of %d, %d are ever", c.name, one, n, times, len(first))
			}
		}
	}
}
