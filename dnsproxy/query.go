package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// Query asks the proxy itself, without a socket: the same table, cache and
// upstreams. qtype is a type's name, such as A or SRV, in any case. The answer's
// Source is cluster, cache, the upstream's address, or proxy for what the proxy
// refuses by itself. An error means that the question cannot be asked, or that
// ctx ended.
func (p *Proxy) Query(ctx context.Context, name, qtype string) (api.DNSAnswer, error) {
	rtype, known := dns.StringToType[strings.ToUpper(qtype)]
	if !known {
		return api.DNSAnswer{}, fmt.Errorf("query %s: there is no record type %q", name, qtype)
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), rtype)
	m.SetEdns0(udpSize, false)
	packed, err := m.Pack()
	if err != nil {
		return api.DNSAnswer{}, fmt.Errorf("query %q: %w", name, err)
	}
	start := time.Now()
	wire, from, err := p.ask(ctx, packed)
	if err != nil {
		return api.DNSAnswer{}, fmt.Errorf("query %s: %w", name, err)
	}
	took := api.Duration(time.Since(start))
	m = new(dns.Msg)
	if err := m.Unpack(wire); err != nil {
		return api.DNSAnswer{}, fmt.Errorf("query %s: read the answer: %w", name, err)
	}
	answer := api.DNSAnswer{
		Name: dns.Fqdn(name), Type: typeName(rtype), Rcode: dns.RcodeToString[m.Rcode],
		Answer: lines(m.Answer), Authority: lines(m.Ns), Additional: lines(m.Extra), Source: from, Took: took,
	}
	return answer, nil
}

// ask serves a packed query and waits for an upstream's answer if it must.
func (p *Proxy) ask(ctx context.Context, packed []byte) (wire []byte, from string, err error) {
	var q query
	out := make([]byte, tcpSize)
	n, _, src := p.answer(&q, &client{tcp: true}, out, tcpSize, q.parse(packed), p.now())
	if q.ahead {
		p.fetchAhead(&q)
	}
	if src != sourceUpstream {
		return out[:n], sourceNames[src], nil
	}
	type late struct {
		wire []byte
		from string
	}
	answered := make(chan late, 1)
	p.waitFor(&q, netip.Addr{}, tcpSize, func(wire []byte, _ int, from string) { answered <- late{wire, from} })
	select {
	case a := <-answered:
		return a.wire, a.from, nil
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
}

func typeName(qtype uint16) string { return dns.Type(qtype).String() }

// lines are records in presentation format, the OPT pseudo-record left out.
func lines(records []dns.RR) []string {
	var all []string
	for _, rr := range records {
		if rr.Header().Rrtype != dns.TypeOPT {
			all = append(all, strings.ReplaceAll(rr.String(), "\t", " "))
		}
	}
	return all
}
