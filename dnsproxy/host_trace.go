package dnsproxy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// traceLimit is how long an upstream is waited for in a trace.
const traceLimit = 3 * time.Second

// Trace goes the way of a question and tells what each step says. Of a name
// outside, every upstream of its zone is asked, whatever the cache has, to
// compare them; a cluster's name is never asked of anybody. qtype is as in
// Query. An error means that the question cannot be asked, or that ctx ended.
func (p *Proxy) Trace(ctx context.Context, name, qtype string) (api.DNSTrace, error) {
	rtype, known := dns.StringToType[strings.ToUpper(qtype)]
	if !known {
		return api.DNSTrace{}, fmt.Errorf("trace %s: there is no record type %q", name, qtype)
	}
	x, err := p.Explain(name)
	if err != nil {
		return api.DNSTrace{}, fmt.Errorf("trace: %w", err)
	}
	t := api.DNSTrace{Name: x.Name, Type: typeName(rtype)}
	step := func(what, format string, args ...any) {
		t.Steps = append(t.Steps, api.DNSTraceStep{Step: what, Verdict: fmt.Sprintf(format, args...)})
	}
	if x.Status != "outside" {
		step("cluster's names", "%s, in the zone %s: no upstream is ever asked", x.Status, x.Zone)
	} else {
		step("cluster's names", "it is in none of the cluster's zones")
		p.traceCache(&x, t.Type, step)
		if x.Reason != "" {
			step("forward zone", "%s", x.Reason)
		} else {
			step("forward zone", "%s is the longest match: %s, in this order", x.ForwardZone, strings.Join(x.Upstreams, ", "))
			t.Upstreams = p.askAll(ctx, &x, rtype)
		}
	}
	t.Answer, err = p.Query(ctx, name, qtype)
	return t, err
}

func (p *Proxy) traceCache(x *Explanation, rtype string, step func(what, format string, args ...any)) {
	i := slices.IndexFunc(x.Cache, func(c CacheEntry) bool { return c.Type == rtype || c.Type == "*" })
	switch {
	case i < 0:
		step("cache", "nothing is kept")
	case x.Cache[i].TTL < 0:
		step("cache", "the answer of %s ended %d s ago: it serves only while no upstream answers", x.Cache[i].Upstream, -x.Cache[i].TTL)
	default:
		step("cache", "%s from %s, kept for %d s, good for %d s more: clients get this", x.Cache[i].Rcode, x.Cache[i].Upstream, x.Cache[i].Age, x.Cache[i].TTL)
	}
}

// askAll asks every upstream of the name's zone at once.
func (p *Proxy) askAll(ctx context.Context, x *Explanation, rtype uint16) []api.DNSTraceUpstream {
	wire, err := anyName(x.Name)
	if err != nil {
		return nil
	}
	zone := p.forward.routes.Load().match([]byte(wire))
	if zone == nil {
		return nil // it has just been changed
	}
	ctx, stop := context.WithTimeout(ctx, traceLimit)
	defer stop()
	asked := slices.Clone(zone.upstreams)
	order := func(u *upstream) int { return slices.Index(x.Upstreams, u.name) }
	slices.SortStableFunc(asked, func(a, b *upstream) int { return order(a) - order(b) })
	told := make([]chan api.DNSTraceUpstream, len(asked))
	calls := make([]*call, len(asked))
	for i, u := range asked {
		told[i] = make(chan api.DNSTraceUpstream, 1)
		calls[i] = p.traceCall(u, &question{name: []byte(wire), qtype: rtype}, told[i])
	}
	all := make([]api.DNSTraceUpstream, len(asked))
	for i, u := range asked {
		select {
		case all[i] = <-told[i]:
		case <-ctx.Done():
			calls[i].cancel()
			all[i] = traced(u)
			all[i].Verdict = fmt.Sprintf("no answer within %s", traceLimit)
		}
		if u.loop.found(p.now()) {
			all[i].Verdict = "it leads back to this proxy: clients' questions do not go there"
		}
	}
	return all
}

func traced(u *upstream) api.DNSTraceUpstream {
	u.mu.Lock()
	defer u.mu.Unlock()
	return api.DNSTraceUpstream{Upstream: u.name, Protocol: string(u.config.Protocol), Usual: api.Duration(u.roundTrip)}
}

// traceCall asks one upstream.
func (p *Proxy) traceCall(u *upstream, q *question, told chan<- api.DNSTraceUpstream) *call {
	began := p.now()
	c := &call{up: u, q: q, clock: p.now}
	c.done = func(_ *call, r *response, err error) {
		one := traced(u)
		one.Took = api.Duration(p.now() - began)
		if err != nil {
			one.Verdict = err.Error()
			told <- one
			return
		}
		one.Rcode = dns.RcodeToString[r.rcode]
		m := new(dns.Msg)
		switch {
		case m.Unpack(r.wire) != nil:
			one.Verdict = "its answer is malformed"
		case r.rcode == dns.RcodeSuccess || r.rcode == dns.RcodeNameError:
			one.Answer, one.Verdict = lines(m.Answer), "good"
		default:
			one.Verdict = "a failure: the next one is asked"
		}
		told <- one
	}
	if err := c.start(); err != nil {
		one := traced(u)
		one.Verdict = err.Error()
		told <- one
	}
	return c
}
