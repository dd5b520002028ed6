package dnsproxy

import (
	"sync"
	"sync/atomic"

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

// metrics collects the proxy's counters when it is scraped.
type metrics struct {
	proxy                     *Proxy
	panics, denied, transfers atomic.Uint64

	mu  sync.Mutex // guards all
	all []*counters

	queries, dropped, unsent, panicked, hits, misses, stale, evictions, entries, bytes, failures, overload, names, revision *prometheus.Desc
	// zones and duration are about answers, tapped about those that dnstap lost.
	zones, duration, serial, tapLost *prometheus.Desc

	ahead, coalesced, refused, transferred, limited, inFlight, asked, hedges, forged, unsentUp, roundTrip, loops *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, p *Proxy) (*metrics, error) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_dns_"+name, help, labels, nil)
	}
	m := &metrics{
		proxy:       p,
		queries:     desc("queries_total", "Queries answered.", "proto", "rcode", "source"),
		zones:       desc("zone_queries_total", "Queries answered by zone, \".\" for those outside ours.", "zone", "type", "rcode"),
		duration:    desc("query_duration_seconds", "Time from a query's arrival to its answer.", "source"),
		serial:      desc("table_serial", "Serial of the zones' SOA records."),
		tapLost:     desc("dnstap_lost_total", "Messages that dnstap's receiver did not take in time."),
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
	m.collectQueries(ch, counter)
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
	if m.proxy.tap != nil {
		counter(m.tapLost, m.proxy.tap.lost.Load())
	}
	if t := m.proxy.Table(); t != nil {
		gauge(m.names, t.Len())
		gauge(m.revision, int(t.Revision()))
		gauge(m.serial, int(t.Serial()))
	}
}

// collectQueries gives what concerns answers.
func (m *metrics) collectQueries(ch chan<- prometheus.Metric, counter func(*prometheus.Desc, uint64, ...string)) {
	var all tally
	for _, proto := range []string{"udp", "tcp", "tls"} {
		sum, dropped, unsent := m.sum(proto)
		for s := range sourceCount {
			for r := range rcodeSlots {
				if n := sum.queries[s][r]; n > 0 || s == sourceCluster && r == 0 && proto != "tls" {
					counter(m.queries, n, proto, rcodeNames[r], sourceNames[s])
				}
			}
		}
		counter(m.dropped, dropped, proto)
		counter(m.unsent, unsent, proto)
		all.add(&sum)
	}
	zones := []string{"."}
	if t := m.proxy.Table(); t != nil {
		for _, z := range t.zones {
			zones = append(zones, readable(z.name))
		}
	}
	for z := range zoneSlots {
		name := "other"
		if z < len(zones) && (z < zoneSlots-1 || len(zones) <= zoneSlots) {
			name = zones[z]
		}
		for y := range typeSlots {
			for r := range rcodeSlots {
				if n := all.zones[z][y][r]; n > 0 {
					counter(m.zones, n, name, typeNames[y], rcodeNames[r])
				}
			}
		}
	}
	ch <- all.local.metric(m.duration, "local")
	ch <- all.waited.metric(m.duration, "upstream")
}

// metric of a histogram, with the cumulative counts that Prometheus wants.
func (h *histogram) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets, count := make(map[float64]uint64, len(latencyBounds)), uint64(0)
	for i, bound := range latencyBounds {
		count += h.buckets[i]
		buckets[bound.Seconds()] = count
	}
	count += h.buckets[len(latencyBounds)]
	return prometheus.MustNewConstHistogram(desc, count, h.sum.Seconds(), buckets, labels...)
}

// sum adds up the counters of a protocol's sockets.
func (m *metrics) sum(proto string) (total tally, dropped, unsent uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.all {
		if c.proto != proto {
			continue
		}
		c.mu.Lock()
		total.add(&c.tally)
		c.mu.Unlock()
		c.late.mu.Lock()
		total.add(&c.late.tally)
		c.late.mu.Unlock()
		dropped += c.dropped.Load()
		unsent += c.unsent.Load()
	}
	return total, dropped, unsent
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
