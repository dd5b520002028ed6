package health

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	passed, failed, unmade prometheus.Counter
	up, down               prometheus.Gauge
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	checks := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_health_checks_total", Help: "Health checks by result; unmade is for want of this node's own resources."}, []string{"result"})
	backends := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_health_backends", Help: "Checked backends by state."}, []string{"state"})
	if reg != nil {
		reg.MustRegister(checks, backends)
	}
	return &metrics{
		passed: checks.WithLabelValues("success"), failed: checks.WithLabelValues("failure"), unmade: checks.WithLabelValues("unmade"),
		up: backends.WithLabelValues("up"), down: backends.WithLabelValues("down"),
	}
}

func (m *metrics) observe(err error) {
	if err == nil {
		m.passed.Inc()
	} else {
		m.failed.Inc()
	}
}

// count publishes how many of all backends are up.
func (m *metrics) count(up, all int) {
	m.up.Set(float64(up))
	m.down.Set(float64(all - up))
}
