package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/dataplane/deliver"
	"github.com/weirproject/weir/dataplane/edge"
)

var (
	edgePackets = prometheus.NewDesc("weir_edge_packets_total", "Packets from outside, by service and what became of them.", []string{"vip", "verdict"}, nil)
	edgeBytes   = prometheus.NewDesc("weir_edge_bytes_total", "Bytes of IP packets from outside that were sent on to backends.", []string{"vip"}, nil)
	edgeFlows   = prometheus.NewDesc("weir_edge_flows_total", "Connections from outside that began.", []string{"vip"}, nil)
	edgeReasons = prometheus.NewDesc("weir_edge_reasons_total", "Packets at the edge by what became of them besides plain delivery.", []string{"reason"}, nil)
	edgeFaults  = prometheus.NewDesc("weir_edge_malformed_packets_total", "Malformed packets at the edge, by what is wrong with them.", []string{"fault"}, nil)
	edgeNAT     = prometheus.NewDesc("weir_edge_nat_packets_total", "Packets to and from backends behind NAT, by what became of them.", []string{"result"}, nil)

	deliveryPackets = prometheus.NewDesc("weir_delivery_packets_total", "Packets of clients outside on a backend's node, by what became of them.", []string{"result"}, nil)
	deliveryDrops   = prometheus.NewDesc("weir_delivery_dropped_total", "Packets out of tunnels that were dropped, by reason.", []string{"reason"}, nil)
)

// edgeCollector reads the edge program's counters at every scrape.
type edgeCollector struct{ sink *edge.Edge }

func (c edgeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{edgePackets, edgeBytes, edgeFlows, edgeReasons, edgeFaults, edgeNAT} {
		ch <- d
	}
}

func (c edgeCollector) Collect(ch chan<- prometheus.Metric) {
	counters, err := c.sink.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(edgePackets, err)
		return
	}
	for name, n := range counters.Services {
		count(ch, edgePackets, n.Packets, name, "delivered")
		count(ch, edgePackets, n.Refused, name, "refused")
		count(ch, edgeBytes, n.Bytes, name)
		count(ch, edgeFlows, n.Flows, name)
	}
	countAll(ch, edgeReasons, counters.Reasons)
	countAll(ch, edgeFaults, counters.Faults)
	countAll(ch, edgeNAT, counters.NAT)
}

// deliveryCollector reads the counters of the programs that take packets out of
// tunnels.
type deliveryCollector struct{ sink *deliver.Deliverer }

func (c deliveryCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- deliveryPackets
	ch <- deliveryDrops
}

func (c deliveryCollector) Collect(ch chan<- prometheus.Metric) {
	n, err := c.sink.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(deliveryPackets, err)
		return
	}
	countAll(ch, deliveryPackets, map[string]uint64{
		"delivered": n.Delivered, "answered": n.Answered, "error-in": n.ErrorsIn, "error-out": n.ErrorsOut,
		"clamped": n.Clamped, "forgotten": n.Forgotten,
	})
	countAll(ch, deliveryDrops, n.Dropped)
}

func count(ch chan<- prometheus.Metric, d *prometheus.Desc, n uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func countAll(ch chan<- prometheus.Metric, d *prometheus.Desc, all map[string]uint64) {
	for label, n := range all {
		count(ch, d, n, label)
	}
}
