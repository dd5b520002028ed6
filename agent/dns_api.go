package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/dnsproxy"
)

// listLimit is how many entries a list has where the request does not say.
const listLimit = 100

// withProxy answers requests to the proxy, where there is one.
func (a *Agent) withProxy(do func(p *dnsproxy.Proxy, r *http.Request) (any, error)) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		if a.dns.proxy == nil {
			return nil, &httpError{http.StatusServiceUnavailable, errors.New("the DNS proxy is off: dns.listen is empty")}
		}
		return do(a.dns.proxy, r)
	})
}

func limitOf(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return listLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, &httpError{http.StatusBadRequest, fmt.Errorf("limit %q is not a number from 1", text)}
	}
	return n, nil
}

func dnsCache(p *dnsproxy.Proxy, r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	entries, err := p.Dump(r.FormValue("name"), limit)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	return append([]api.DNSCacheEntry{}, cacheEntries(entries)...), nil
}

func cacheEntries(entries []dnsproxy.CacheEntry) (all []api.DNSCacheEntry) {
	for _, e := range entries {
		all = append(all, api.DNSCacheEntry{
			Name: e.Name, Type: e.Type, Rcode: e.Rcode, Answer: e.Answer, Upstream: e.Upstream, Age: e.Age, TTL: e.TTL, Hits: e.Hits,
		})
	}
	return all
}

func dnsExplain(p *dnsproxy.Proxy, r *http.Request) (any, error) {
	x, err := p.Explain(r.FormValue("name"))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	explained := func(records []dnsproxy.ExplainedRecord) (all []api.DNSExplainedRecord) {
		for _, e := range records {
			all = append(all, api.DNSExplainedRecord{Record: e.Record, Source: e.Source, Reason: e.Why})
		}
		return all
	}
	return api.DNSExplanation{
		Name: x.Name, Status: x.Status, Zone: x.Zone, Entry: x.Entry, Records: explained(x.Records), LeftOut: explained(x.LeftOut),
		ForwardZone: x.ForwardZone, Upstreams: x.Upstreams, Reason: x.Reason, Cache: cacheEntries(x.Cache),
	}, nil
}

func dnsTop(p *dnsproxy.Proxy, r *http.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	all := []api.DNSTopName{}
	for _, t := range p.Top(limit) {
		all = append(all, api.DNSTopName{Name: t.Name, Type: t.Type, Queries: t.Queries})
	}
	return all, nil
}

func dnsUpstreams(p *dnsproxy.Proxy, _ *http.Request) (any, error) {
	all := []api.DNSUpstream{}
	for _, u := range p.Upstreams() {
		all = append(all, api.DNSUpstream{
			Upstream: u.Upstream, Zones: u.Zones, RoundTrip: api.Duration(u.RoundTrip), Queries: u.Queries,
			Hedges: u.Hedges, Failed: u.Failed, Down: u.Down, Looped: u.Looped,
		})
	}
	return all, nil
}

func dnsTrace(p *dnsproxy.Proxy, r *http.Request) (any, error) {
	name, recordType := r.FormValue("name"), cmp.Or(r.FormValue("type"), "A")
	if name == "" {
		return nil, &httpError{http.StatusBadRequest, errors.New("name is missing")}
	}
	t, err := p.Trace(r.Context(), name, recordType)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	return t, nil
}

func dnsFlush(p *dnsproxy.Proxy, r *http.Request) (any, error) {
	n, err := p.Flush(r.FormValue("name"))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, err}
	}
	return api.DNSFlushed{Entries: n}, nil
}

// dnsRoutes are the API of the DNS proxy.
func (a *Agent) dnsRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+client.PathDNSQuery, answer(a.queryDNS))
	mux.HandleFunc("GET "+client.PathDNSCache, a.withProxy(dnsCache))
	mux.HandleFunc("GET "+client.PathDNSExplain, a.withProxy(dnsExplain))
	mux.HandleFunc("GET "+client.PathDNSTop, a.withProxy(dnsTop))
	mux.HandleFunc("GET "+client.PathDNSUpstreams, a.withProxy(dnsUpstreams))
	mux.HandleFunc("GET "+client.PathDNSTrace, a.withProxy(dnsTrace))
	mux.HandleFunc("POST "+client.PathDNSFlush, a.withProxy(dnsFlush))
	a.mesosRoutes(mux)
}

// mesosRoutes are for what asked Mesos-DNS over HTTP: it finds the same here.
func (a *Agent) mesosRoutes(mux *http.ServeMux) {
	if a.dns.proxy != nil {
		mux.Handle("GET /mesos_dns/", http.StripPrefix("/mesos_dns", a.dns.proxy.MesosDNS()))
	}
}
