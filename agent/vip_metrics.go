package agent

import (
	"github.com/prometheus/client_golang/prometheus"
)

// vipCollector reads the connection counters from the kernel at every scrape.
type vipCollector struct{ vips *vipComponent }

var (
	vipConnections = prometheus.NewDesc("weir_vip_connections_total", "Connections made through a virtual IP on this node.", []string{"vip", "verdict"}, nil)
	vipOpen        = prometheus.NewDesc("weir_vip_open_connections", "Connections through a virtual IP that are open on this node.", []string{"vip"}, nil)
	vipFailures    = prometheus.NewDesc("weir_vip_connection_failures_total", "Connections through a virtual IP that did not open, of services with outlier detection.", []string{"vip"}, nil)
	vipResets      = prometheus.NewDesc("weir_vip_connection_resets_total", "Connections through a virtual IP that were ended because their backend went away.", []string{"vip"}, nil)
	vipUnserved    = prometheus.NewDesc("weir_vip_unserved_port_total", "Connections refused because the virtual IP does not serve the port.", nil, nil)
)

func (c vipCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{vipConnections, vipOpen, vipFailures, vipResets, vipUnserved} {
		ch <- d
	}
}

func (c vipCollector) Collect(ch chan<- prometheus.Metric) {
	counters, err := c.vips.balancer.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(vipConnections, err)
		return
	}
	for name, n := range counters.Services {
		var open, failures, resets uint64
		for _, b := range n.Backends {
			open, failures, resets = open+b.Open, failures+b.Failures, resets+b.Reset
		}
		count(ch, vipConnections, n.Connections, name, "balanced")
		count(ch, vipConnections, n.Refused, name, "refused")
		count(ch, vipConnections, n.Limited, name, "limited")
		ch <- prometheus.MustNewConstMetric(vipOpen, prometheus.GaugeValue, float64(open), name)
		count(ch, vipFailures, failures, name)
		count(ch, vipResets, resets, name)
	}
	count(ch, vipUnserved, counters.UnservedPorts)
}
