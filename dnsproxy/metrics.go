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
	proxy  *Proxy
	panics atomic.Uint64

	mu  sync.Mutex // guards all
	all []*counters

	queries, dropped, unsent, panicked, hits, misses, stale, evictions, entries, bytes, failures, overload, names, revision *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, p *Proxy) (*metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_dns_"+name, help, labels, nil)
	}
	m := &metrics{
		proxy:     p,
		queries:   desc("queries_total", "Queries answered.", "proto", "rcode", "source"),
		dropped:   desc("dropped_total", "Packets without an answer (no query), and connections over the limit.", "proto"),
		unsent:    desc("unsent_total", "Answers that the kernel did not take.", "proto"),
		panicked:  desc("panics_total", "Queries that broke the code that answers them."),
		hits:      desc("cache_hits_total", "Forwarded names answered from the cache."),
		misses:    desc("cache_misses_total", "Forwarded names that the cache did not have."),
		stale:     desc("cache_stale_total", "Times that no upstream answered and an old answer served on."),
		evictions: desc("cache_evictions_total", "Answers that left the full cache."),
		entries:   desc("cache_entries", "Answers in the cache."),
		bytes:     desc("cache_bytes", "Memory that the cache takes."),
		failures:  desc("upstream_failures_total", "Questions that an upstream did not answer in time, or not well.", "upstream"),
		overload:  desc("overload_total", "Questions not forwarded since too many were under way."),
		names:     desc("table_names", "Names in the cluster's table."),
		revision:  desc("table_revision", "Revision of the snapshot that the table was made of."),
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
	for _, u := range m.proxy.forward.upstreams {
		counter(m.failures, u.failures.Load(), u.name)
	}
	counter(m.overload, m.proxy.flights.overload.Load())
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
