package answers

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"
)

// What a hostile client may send, from plain queries by a few changed bytes: an
// answer that comes is a well-formed one to that query, and everything else goes
// up as it came.
func checkHostile(t *testing.T, a *Answerer, in []byte) {
	t.Helper()
	if len(in) < 14 {
		return // no frame has less
	}
	if len(in) < 14+20 || len(in) < 14+40 && in[12] == 0x86 {
		return // the kernel runs no program on half a header
	}
	word, out := run(t, a, in)
	switch word {
	case tcxNext:
		if !bytes.Equal(in, out) {
			t.Fatalf("passed up, but changed\n in  %x\n out %x", in, out)
		}
		return
	case tcxRedirect:
	default:
		t.Fatalf("word %d for %x", int32(word), in)
	}
	head := 42
	if in[12] == 0x86 {
		head = 62
	}
	q, m := new(dns.Msg), new(dns.Msg)
	if err := q.Unpack(in[head:]); err != nil {
		t.Fatalf("%v, but it was answered: %x", err, in)
	}
	if err := m.Unpack(out[head:]); err != nil {
		t.Fatalf("%v in the answer %x to %x", err, out, in)
	}
	if packed, err := repack(m); err != nil || len(packed) > 512 {
		t.Fatalf("answer of %d bytes, %v", len(packed), err)
	}
	isSame := m.Id == q.Id && m.Response && m.Authoritative && m.Opcode == 0 && m.Rcode == 0 && !m.Truncated &&
		m.RecursionDesired == q.RecursionDesired && m.CheckingDisabled == q.CheckingDisabled && !m.AuthenticatedData && !m.Zero &&
		len(m.Question) == 1 && m.Question[0] == q.Question[0] && (m.IsEdns0() == nil) == (q.IsEdns0() == nil)
	if !isSame || len(m.Answer)+len(m.Ns) == 0 || len(m.Answer) > 0 && len(m.Ns) > 0 {
		t.Fatalf("query\n%v\nanswer\n%v", q, m)
	}
	for _, rr := range m.Answer {
		if rr.Header().Name != q.Question[0].Name || rr.Header().Rrtype != q.Question[0].Qtype {
			t.Fatalf("query\n%v\nanswer\n%v", q, m)
		}
	}
}

// repack gives a message's bytes again, with compression as the program has it.
func repack(m *dns.Msg) ([]byte, error) { c := *m; c.Compress = true; return c.Pack() }

// plainQueries are what mutations begin with.
func plainQueries(t testing.TB) (all []packet) {
	for _, name := range []string{"one", "eight", "sixeight", "both", "none", repeat('x', 63) + "." + repeat('x', 42)} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, change := range []func(*dns.Msg){func(*dns.Msg) {}, edns(1232, true)} {
				wire := question(t, name+".weir.internal.", qtype, change)
				all = append(all, packet{from: cli4, to: here4, payload: wire}, packet{from: cli6, to: here6, payload: wire})
			}
		}
	}
	return all
}

func TestMutatedPacketsNeverGetAMalformedAnswer(t *testing.T) {
	a := sharedAnswerer(t)
	seeds, r := plainQueries(t), rand.New(rand.NewPCG(3, 4))
	before := counters(t, a)
	for range 30_000 {
		p := seeds[r.IntN(len(seeds))]
		p.payload, p.sum = bytes.Clone(p.payload), r.IntN(4)
		isAboutMessage := r.IntN(3) > 0
		if isAboutMessage { // of which the sum is right
			p.payload = mutate(p.payload, r)
		}
		in := p.frame()
		if !isAboutMessage {
			in = mutate(in, r)
		}
		checkHostile(t, a, in)
	}
	after := counters(t, a)
	if after.Answered-before.Answered < 1000 || after.Denied == before.Denied {
		t.Errorf("few of them were answered: %+v", after)
	}
}

// mutate changes, removes, or adds bytes, or does nothing.
func mutate(b []byte, r *rand.Rand) []byte {
	for range r.IntN(4) {
		if len(b) == 0 {
			return b
		}
		at := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b = b[:at]
		case 1:
			b = append(b[:at:at], b[min(len(b), at+1+r.IntN(3)):]...)
		case 2:
			b = append(b[:at:at], append([]byte{byte(r.Uint32())}, b[at:]...)...)
		case 3:
			b[at] ^= 1 << r.IntN(8)
		case 4:
			b[at] ^= 0x20
		default:
			b[at] = byte(r.Uint32())
		}
	}
	return b
}

func FuzzProgram(f *testing.F) {
	a := sharedAnswerer(f)
	for _, p := range plainQueries(f) {
		f.Add(p.frame())
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 1500 {
			checkHostile(t, a, frame)
		}
	})
}

// The packet around the message decides too.
func TestOddPacketsGoUpUntouched(t *testing.T) {
	a := sharedAnswerer(t)
	wire := question(t, "one.weir.internal.", dns.TypeA)
	v4, v6 := packet{from: cli4, to: here4, payload: wire}, packet{from: cli6, to: here6, payload: wire}
	edit := func(p packet, change func(f []byte)) []byte {
		f := p.frame()
		change(f)
		if p.to.Addr().Is4() && f[24] != 0xEE {
			resum(f)
		}
		return f
	}
	with := func(p packet, change func(p *packet)) []byte { change(&p); return p.frame() }
	options := v4.frame()
	options = append(append(options[:34:34], 1, 1, 1, 1), options[34:]...)
	options[14], options[17] = 0x46, options[17]+4
	for _, c := range []struct {
		name, reason string
		in           []byte
	}{
		{"IP options", "", options},
		{"a first fragment", "packet", edit(v4, func(f []byte) { f[20] = 0x20 })},
		{"a later fragment", "packet", edit(v4, func(f []byte) { f[21] = 9 })},
		{"IP's checksum", "packet", edit(v4, func(f []byte) { f[24] = 0xEE })},
		{"IP's length too large", "packet", edit(v4, func(f []byte) { f[17]++ })},
		{"IP's length too small", "packet", edit(v4, func(f []byte) { f[17]-- })},
		{"UDP's length", "packet", edit(v4, func(f []byte) { f[39]-- })},
		{"IPv6's length", "packet", edit(v6, func(f []byte) { f[19]++ })},
		{"UDP's length, v6", "packet", edit(v6, func(f []byte) { f[59]++ })},
		{"a padded frame", "packet", append(v4.frame(), 0)},
		{"no checksum, v6", "packet", with(v6, func(p *packet) { p.sum = sumNone })},
		{"a wrong checksum", "checksum", with(v4, func(p *packet) { p.sum = sumWrong })},
		{"a wrong checksum, v6", "checksum", with(v6, func(p *packet) { p.sum = sumWrong })},
		{"from nowhere", "packet", with(v4, func(p *packet) { p.from = ap("0.0.0.0:1000") })},
		{"from a group", "packet", with(v4, func(p *packet) { p.from = ap("224.0.0.1:1000") })},
		{"from broadcast", "packet", with(v4, func(p *packet) { p.from = ap("255.255.255.255:1000") })},
		{"from port 0", "packet", with(v4, func(p *packet) { p.from = ap("10.88.0.9:0") })},
		{"from nowhere, v6", "packet", with(v6, func(p *packet) { p.from = ap("[::]:1000") })},
		{"from a group, v6", "packet", with(v6, func(p *packet) { p.from = ap("[ff02::1]:1000") })},
		{"another address", "", with(v4, func(p *packet) { p.to = ap("169.254.53.54:53") })},
		{"another address, v6", "", with(v6, func(p *packet) { p.to = ap("[fd53::54]:53") })},
		{"another port", "", with(v4, func(p *packet) { p.to = ap("169.254.53.53:54") })},
		{"TCP", "", edit(v4, func(f []byte) { f[23] = 6 })},
		{"an extension header", "", edit(v6, func(f []byte) { f[20] = 60 })},
		{"ARP", "", edit(v4, func(f []byte) { f[13] = 6 })},
		{"broadcast", "packet", edit(v4, func(f []byte) { copy(f, []byte{255, 255, 255, 255, 255, 255}) })},
		{"a frame of a header", "", v4.frame()[:34]},
	} {
		before := counters(t, a)
		word, out := run(t, a, c.in)
		if word != tcxNext || !bytes.Equal(c.in, out) {
			t.Errorf("%s: word %d\n out %x\n in  %x", c.name, int32(word), out, c.in)
		}
		for reason, n := range counters(t, a).Passed {
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

// However the query's checksum is, the answer's is right: sent by somebody who
// left it to the device, it is left to the device again.
func TestTheChecksumIsRightWhateverTheQuerysWas(t *testing.T) {
	a := sharedAnswerer(t)
	for _, name := range []string{"one", "both", "odd1", "eight"} { // questions of odd and even length
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, p := range []packet{{from: cli4, to: here4}, {from: cli6, to: here6}} {
				for _, p.sum = range []int{sumRight, sumPartial, sumNone} {
					if p.sum == sumNone && p.to.Addr().Is6() {
						continue
					}
					p.payload = question(t, name+".weir.internal.", qtype)
					word, out := run(t, a, p.frame())
					if word != tcxRedirect {
						t.Fatalf("%s is not answered", name)
					}
					answerIn(t, p, out)
				}
			}
		}
	}
}
