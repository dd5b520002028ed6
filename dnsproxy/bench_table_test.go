package dnsproxy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"
)

// BenchmarkManyNames asks for one of 100,000 names at random each time, so that
// most of what is read comes from memory and not from a cache.
func BenchmarkManyNames(b *testing.B) {
	const count = 100_000
	p := proxyOf(b, compile(b, many(count), Options{Domain: "weir.internal"}))
	w, out := workerOf(p), make([]byte, udpSize)
	for what, name := range map[string]string{"A": "host%d.rack%d.weir.internal.", "SRV": "_http._tcp.host%d.rack%d.weir.internal.", "none": "none%d.rack%d.weir.internal."} {
		qtype := dns.TypeA
		if what == "SRV" {
			qtype = dns.TypeSRV
		}
		packets := make([][]byte, 1<<14)
		for i := range packets {
			n := rand.IntN(count)
			packets[i], _ = new(dns.Msg).SetQuestion(fmt.Sprintf(name, n, n%100), qtype).Pack()
		}
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if n, _ := w.serve(packets[i%len(packets)], out, 0); n == 0 {
					b.Fatal("no answer")
				}
			}
		})
	}
}
