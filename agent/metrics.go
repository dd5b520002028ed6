package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weirproject/weir/version"
)

type metrics struct {
	revision prometheus.Gauge
	refused  prometheus.Gauge
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	repaired *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		revision: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_agent_applied_revision", Help: "Revision of the snapshot that every component has applied."}),
		refused:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_agent_refused_documents", Help: "Faults in the state files that keep them from being taken over."}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_agent_apply_duration_seconds", Help: "Time that one pass of a component took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"component"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_agent_apply_failures_total", Help: "Passes of a component that failed."}, []string{"component"}),
		repaired: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_agent_drift_repaired_total", Help: "Kernel objects found missing or changed by somebody else, and put right."}, []string{"component"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_agent_build_info", Help: "Always 1; the label has the version.", ConstLabels: prometheus.Labels{"version": version.String()}})
	build.Set(1)
	reg.MustRegister(m.revision, m.refused, m.duration, m.failures, m.repaired, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// serveMetrics serves /metrics over HTTP until ctx ends.
func (a *Agent) serveMetrics(ctx context.Context) error {
	if a.config.Metrics.Listen == "" {
		return nil
	}
	l, err := net.Listen("tcp", a.config.Metrics.Listen)
	if err != nil {
		return fmt.Errorf("listen for metrics (metrics.listen): %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	a.mesosRoutes(mux)
	return serve(ctx, l, mux)
}

// serve answers HTTP on l until ctx ends, then gives requests a second.
func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
