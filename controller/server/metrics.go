package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weirproject/weir/controller/auth"
)

// metrics of the API and the nodes' streams.
type metrics struct {
	requests *prometheus.CounterVec
	streams  prometheus.Gauge
	frames   *prometheus.CounterVec
	bytes    prometheus.Counter
	lag      prometheus.Histogram
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_controller_requests_total", Help: "Requests, by route and status."}, []string{"route", "status"}),
		streams:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_controller_streams", Help: "Nodes whose stream this controller holds."}),
		frames:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_controller_frames_total", Help: "Frames sent to nodes, by type."}, []string{"type"}),
		bytes:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_controller_sent_bytes_total", Help: "Bytes of frames sent to nodes."}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_controller_applied_seconds", Help: "Time from when this controller learned of a revision until a node had applied it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
	}
	registry.MustRegister(m.requests, m.streams, m.frames, m.bytes, m.lag)
	return m
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	promhttp.HandlerFor(s.o.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}
