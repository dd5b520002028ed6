package health

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	checks   *prometheus.CounterVec
	backends *prometheus.GaugeVec
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		checks:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_health_checks_total", Help: "Health checks made."}, []string{"result"}),
		backends: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_health_backends", Help: "Checked backends by state."}, []string{"state"}),
	}
	if reg != nil {
		reg.MustRegister(m.checks, m.backends)
	}
	return m
}

func (m *metrics) observe(err error) {
	if err == nil {
		m.checks.WithLabelValues("success").Inc()
	} else {
		m.checks.WithLabelValues("failure").Inc()
	}
}
