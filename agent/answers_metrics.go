package agent

import "github.com/prometheus/client_golang/prometheus"

var (
	answersAnswered   = prometheus.NewDesc("weir_dns_kernel_answered_total", "Queries that the kernel answered for the DNS proxy, by what the answer is.", []string{"answer"}, nil)
	answersPassed     = prometheus.NewDesc("weir_dns_kernel_passed_total", "Queries to the DNS proxy that the kernel passed up, by reason.", []string{"reason"}, nil)
	answersInterfaces = prometheus.NewDesc("weir_dns_kernel_interfaces", "Interfaces on which the kernel answers for the DNS proxy.", nil, nil)
)

// answersCollector reads the program's counters at every scrape.
type answersCollector struct{ component *answersComponent }

func (c answersCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{answersAnswered, answersPassed, answersInterfaces} {
		ch <- d
	}
}

func (c answersCollector) Collect(ch chan<- prometheus.Metric) {
	sink := c.component.sink.Load()
	if sink == nil {
		return
	}
	counters, err := sink.Counters()
	if err != nil {
		return // it has just been let go
	}
	count(ch, answersAnswered, counters.Answered, "addresses")
	count(ch, answersAnswered, counters.Denied, "none")
	for reason, n := range counters.Passed {
		count(ch, answersPassed, n, reason)
	}
	ch <- prometheus.MustNewConstMetric(answersInterfaces, prometheus.GaugeValue, float64(sink.Interfaces()))
}
