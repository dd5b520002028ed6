package outlier

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ejections prometheus.Counter
	ejected   prometheus.Gauge
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		ejections: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_outlier_ejections_total", Help: "Ejections of backends whose connections failed."}),
		ejected:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_outlier_ejected_backends", Help: "Backends that are ejected now."}),
	}
	if reg != nil {
		reg.MustRegister(m.ejections, m.ejected)
	}
	return m
}
