package dnsproxy

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// source is who gave an answer.
type source uint8

const (
	sourceCluster source = iota
	sourceCache
	sourceUpstream
	sourceProxy // the proxy itself: errors and refusals
	sourceCount
	sourceNobody   // there is no answer
	sourceTransfer // a zone as a whole
)

var sourceNames = [sourceCount]string{"cluster", "cache", "upstream", "proxy"}

// rcodeSlots are the RCODEs that are counted one by one; others share the last.
const rcodeSlots = 8

var rcodeNames = [rcodeSlots]string{"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "badvers", "other"}

func rcodeSlot(rcode int) int {
	switch {
	case rcode <= dns.RcodeRefused:
		return rcode
	case rcode == dns.RcodeBadVers:
		return 6
	}
	return 7
}

// counters of one socket. Each has its own, so that counting moves no cache line
// between CPUs; a scrape adds them up.
type counters struct {
	_       [64]byte
	proto   string
	queries [sourceCount][rcodeSlots]atomic.Uint64
	dropped atomic.Uint64 // packets that get no answer: responses and fragments of a header
	unsent  atomic.Uint64 // answers that the kernel did not take
	_       [64]byte
}

func (c *counters) add(s source, rcode int) { c.queries[s][rcodeSlot(rcode)].Add(1) }

// metrics collects the proxy's counters when it is scraped.
type metrics struct {
	proxy                     *Proxy
	panics, denied, transfers atomic.Uint64

	mu  sync.Mutex // guards all
	all []*counters

	queries, dropped, unsent, panicked, hits, misses, stale, evictions, entries, bytes, failures, overload, names, revision *prometheus.Desc

	ahead, coalesced, refused, transferred, limited, inFlight, asked, hedges, forged, unsentUp, roundTrip, loops *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, p *Proxy) (*metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_dns_"+name, help, labels, nil)
	}
	m := &metrics{
		proxy:       p,
		queries:     desc("queries_total", "Queries answered.", "proto", "rcode", "source"),
		dropped:     desc("dropped_total", "Packets without an answer (no query), and connections over the limit.", "proto"),
		unsent:      desc("unsent_total", "Answers that the kernel did not take.", "proto"),
		panicked:    desc("panics_total", "Queries that broke the code that answers them."),
		hits:        desc("cache_hits_total", "Forwarded names answered from the cache."),
		misses:      desc("cache_misses_total", "Forwarded names that the cache did not have."),
		stale:       desc("cache_stale_total", "Times that no upstream answered and an old answer served on."),
		evictions:   desc("cache_evictions_total", "Answers that left the full cache."),
		entries:     desc("cache_entries", "Answers in the cache."),
		bytes:       desc("cache_bytes", "Memory that the cache takes."),
		failures:    desc("upstream_failures_total", "Questions that an upstream did not answer in time, or not well.", "upstream"),
		ahead:       desc("cache_prefetches_total", "Answers fetched anew before their end since they are asked for often."),
		coalesced:   desc("coalesced_total", "Questions that waited for an equal one under way."),
		refused:     desc("access_denied_total", "Questions refused since the client may not ask for the name."),
		transferred: desc("transfers_total", "Zone transfers."),
		limited:     desc("rate_limited_total", "Answers over the rate of the client's network, by what became of them.", "action"),
		inFlight:    desc("forwards_in_flight", "Questions that wait for upstreams."),
		asked:       desc("upstream_queries_total", "Questions sent to an upstream, repetitions in another form not counted.", "upstream"),
		hedges:      desc("upstream_hedges_total", "Questions sent to an upstream since another one was late.", "upstream"),
		forged:      desc("upstream_mismatches_total", "Replies of an upstream's address that fit no question.", "upstream"),
		unsentUp:    desc("upstream_unsent_total", "Questions to an upstream that the kernel did not take.", "upstream"),
		roundTrip:   desc("upstream_round_trip_seconds", "Smoothed time that an upstream takes.", "upstream"),
		loops:       desc("upstream_loops_total", "Times that an upstream led back to this proxy.", "upstream"),
		overload:    desc("overload_total", "Questions not forwarded since too many were under way."),
		names:       desc("table_names", "Names in the cluster's table."),
		revision:    desc("table_revision", "Revision of the snapshot that the table was made of."),
	}
	if reg == nil {
		return m, nil
	}
	return m, reg.Register(m)
}

func (m *metrics) newCounters(proto string) *counters {
	c := &counters{proto: proto}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, c)
	return c
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	for _, proto := range []string{"udp", "tcp"} {
		sum := m.sum(proto)
		for s := range sourceCount {
			for r := range rcodeSlots {
				if n := sum.queries[s][r].Load(); n > 0 || s == sourceCluster && r == 0 {
					counter(m.queries, n, proto, rcodeNames[r], sourceNames[s])
				}
			}
		}
		counter(m.dropped, sum.dropped.Load(), proto)
		counter(m.unsent, sum.unsent.Load(), proto)
	}
	c := m.proxy.cache
	counter(m.panicked, m.panics.Load())
	counter(m.hits, c.hits.Load())
	counter(m.misses, c.misses.Load())
	counter(m.stale, c.stale.Load())
	counter(m.evictions, c.evictions.Load())
	entries, bytes := c.size()
	gauge(m.entries, entries)
	gauge(m.bytes, bytes)
	m.collectForwarding(ch, counter, gauge)
	if t := m.proxy.Table(); t != nil {
		gauge(m.names, t.Len())
		gauge(m.revision, int(t.Revision()))
	}
}

// sum adds up the counters of a protocol's sockets.
func (m *metrics) sum(proto string) *counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := &counters{proto: proto}
	for _, c := range m.all {
		if c.proto != proto {
			continue
		}
		for s := range c.queries {
			for r := range c.queries[s] {
				total.queries[s][r].Add(c.queries[s][r].Load())
			}
		}
		total.dropped.Add(c.dropped.Load())
		total.unsent.Add(c.unsent.Load())
	}
	return total
}

// collectForwarding gives what concerns upstreams, and the clients' bounds.
func (m *metrics) collectForwarding(ch chan<- prometheus.Metric, counter func(*prometheus.Desc, uint64, ...string), gauge func(*prometheus.Desc, int)) {
	p := m.proxy
	for _, u := range p.forward.routes.Load().upstreams {
		counter(m.failures, u.failed.Load(), u.name)
		counter(m.asked, u.queries.Load(), u.name)
		counter(m.hedges, u.hedged.Load(), u.name)
		counter(m.forged, u.forged.Load(), u.name)
		counter(m.unsentUp, u.unsent.Load(), u.name)
		counter(m.loops, u.loop.seen.Load(), u.name)
		u.mu.Lock()
		seconds := u.roundTrip / 1e9
		u.mu.Unlock()
		ch <- prometheus.MustNewConstMetric(m.roundTrip, prometheus.GaugeValue, seconds, u.name)
	}
	counter(m.overload, p.flights.overload.Load())
	counter(m.coalesced, p.flights.coalesced.Load())
	counter(m.ahead, p.cache.ahead.Load())
	counter(m.refused, m.denied.Load())
	counter(m.transferred, m.transfers.Load())
	gauge(m.inFlight, p.flights.size())
	if p.limit != nil {
		counter(m.limited, p.limit.slipped.Load(), "cut")
		counter(m.limited, p.limit.dropped.Load(), "dropped")
	}
}
