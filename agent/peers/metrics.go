package peers

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	pings, late, refuted prometheus.Counter
	changes, refused     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		pings:   prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_peer_pings_total", Help: "Pings sent to other nodes."}),
		late:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_peer_late_total", Help: "Times that this node had no processor for a while, and forgave it to the others."}),
		refuted: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_peer_refuted_total", Help: "Times that others took this node for gone while it was not."}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_peer_changes_total", Help: "Changes of other nodes' health, by what it became."}, []string{"health"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_peer_refused_packets_total", Help: "Packets that were not believed, by reason."}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.pings, m.late, m.refuted, m.changes, m.refused)
	}
	return m
}
