package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// zoneCollector reads the rules' counters from the kernel at every scrape.
type zoneCollector struct{ zones *zonesComponent }

var (
	zonePackets = prometheus.NewDesc("weir_zone_packets_total", "Packets that open a flow, by the rule of the policy that decided; default-deny has those that no rule allows.", []string{"rule"}, nil)
	zoneBytes   = prometheus.NewDesc("weir_zone_bytes_total", "Bytes of the packets that open a flow, by rule.", []string{"rule"}, nil)
	zoneDropped = prometheus.NewDesc("weir_zone_dropped_packets_total", "Packets that were dropped, by rule.", []string{"rule"}, nil)
	zoneWould   = prometheus.NewDesc("weir_zone_would_drop_packets_total", "Packets that passed, but would be dropped if the mode were enforce, by rule.", []string{"rule"}, nil)
	zoneLearnt  = prometheus.NewDesc("weir_zone_learnt_addresses", "Addresses of DNS names that egress rules allow now.", nil, nil)
	zonePending = prometheus.NewDesc("weir_zone_pending_change", "1 while a policy waits to be confirmed.", nil, nil)
)

func (z zoneCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{zonePackets, zoneBytes, zoneDropped, zoneWould, zoneLearnt, zonePending} {
		ch <- d
	}
}

func (z zoneCollector) Collect(ch chan<- prometheus.Metric) {
	pending := 0.0
	if z.zones.policies.waiting() != nil {
		pending = 1
	}
	ch <- prometheus.MustNewConstMetric(zonePending, prometheus.GaugeValue, pending)
	ch <- prometheus.MustNewConstMetric(zoneLearnt, prometheus.GaugeValue, float64(z.zones.learner.size()))
	counters, err := z.zones.filter.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(zonePackets, err)
		return
	}
	dropped := zoneDropped
	if z.zones.mode == "observe" {
		dropped = zoneWould
	}
	verdicts := verdictsOf(z.zones.ruleset.Load())
	for rule, n := range counters {
		count(ch, zonePackets, n.Packets, rule)
		count(ch, zoneBytes, n.Bytes, rule)
		if verdicts[rule] == api.Deny {
			count(ch, dropped, n.Packets, rule)
		}
	}
}

// verdictsOf tells what each rule that a filter counts does.
func verdictsOf(r *dataplane.Ruleset) map[string]api.Verdict {
	all := map[string]api.Verdict{dataplane.DefaultDeny: api.Deny, dataplane.Invalid: api.Deny, dataplane.Spoofed: api.Deny}
	if r == nil {
		return all
	}
	for _, rules := range [][]dataplane.FilterRule{r.Input, r.Forward, r.Output} {
		for _, rule := range rules {
			all[rule.Name] = api.Allow
			if rule.Deny {
				all[rule.Name] = api.Deny
			}
		}
	}
	return all
}
