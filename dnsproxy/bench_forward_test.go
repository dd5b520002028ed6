package dnsproxy

import (
	"testing"

	"github.com/miekg/dns"
)

func BenchmarkCachedHit(b *testing.B) {
	p := cluster(b, newUpstream(b, answering(dns.RcodeSuccess, "%s 600 IN A 192.0.2.1")))
	resolve(b, p, "www.example.com.", dns.TypeA)
	w, out := workerOf(p), make([]byte, udpSize)
	packet, _ := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).Pack()
	b.ReportAllocs()
	for b.Loop() {
		w.serve(packet, out, p.now())
	}
}

// BenchmarkReadReply is what a forwarded answer costs beyond its system calls.
func BenchmarkReadReply(b *testing.B) {
	m := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	for _, text := range []string{"www.example.com. 60 IN CNAME real.example.com.", "real.example.com. 60 IN A 192.0.2.1"} {
		rr, _ := dns.NewRR(text)
		m.Answer = append(m.Answer, rr)
	}
	m.Response, m.Compress = true, true
	m.SetEdns0(1232, false)
	wire, _ := m.Pack()
	name, _ := wireName("www.example.com")
	q := &question{name: []byte(name), qtype: dns.TypeA}
	b.ReportAllocs()
	for b.Loop() {
		r, err := readResponse(q, wire)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := newCached(q, r, "x", 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	p := cluster(b, newUpstream(b, answering(dns.RcodeSuccess, "%s 0 IN A 192.0.2.1")))
	w, out := workerOf(p), make([]byte, udpSize)
	packet, _ := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).Pack()
	done := make(chan struct{}, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, miss := w.serve(packet, out, p.now()); !miss {
			b.Fatal("no miss")
		}
		w.submit(func([]byte) { done <- struct{}{} })
		<-done
	}
}
