package agent

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/nft"
	"github.com/weirproject/weir/zones"
)

// zonesComponent makes the packet filter enforce the policy.
type zonesComponent struct {
	filter  *nft.Filter
	off     bool
	mode    string
	ruleset *dataplane.Ruleset
}

func (a *Agent) newZones() (*zonesComponent, error) {
	c := &zonesComponent{off: a.config.Zones.Mode == "off", mode: a.config.Zones.Mode}
	if err := nft.Supported(); err != nil {
		if c.off {
			return c, nil
		}
		return nil, fmt.Errorf("zones need nftables (set zones.mode to off to go without): %w", err)
	}
	var err error
	c.filter, err = nft.New(nft.Options{Log: a.log, Mode: nft.Mode(c.mode)})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	a.registry.MustRegister(zoneCollector{c.filter})
	return c, nil
}

func (c *zonesComponent) backend() string {
	if c.filter == nil {
		return "off"
	}
	return c.filter.Backend()
}

func (c *zonesComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if c.filter == nil {
		return dataplane.Changes{}, nil
	}
	var ruleset *dataplane.Ruleset
	if !c.off {
		var err error
		if ruleset, err = zones.Compile(s.Policy, s.Nodes, s.Node); err != nil {
			return dataplane.Changes{}, fmt.Errorf("compile the policy: %w", err)
		}
	}
	changes, err := c.filter.Set(ctx, ruleset)
	if err == nil {
		c.ruleset = ruleset
	}
	return changes, err
}

func (c *zonesComponent) followsStates() bool { return false }

func (c *zonesComponent) detail() string {
	if c.off {
		return "mode off: nothing is filtered"
	}
	if c.ruleset == nil {
		return "no policy: nothing is filtered"
	}
	return fmt.Sprintf("%s: %d input and %d forward rules, %d address sets", c.mode, len(c.ruleset.Input), len(c.ruleset.Forward), len(c.ruleset.Sets))
}

func (c *zonesComponent) close() error { return nil }

// zoneCollector reads the rules' counters from the kernel at every scrape.
type zoneCollector struct{ filter *nft.Filter }

var (
	zonePackets = prometheus.NewDesc("weir_zone_packets_total", "Packets that a rule of the policy decided; default-deny counts the dropped ones.", []string{"rule"}, nil)
	zoneBytes   = prometheus.NewDesc("weir_zone_bytes_total", "Bytes that a rule of the policy decided.", []string{"rule"}, nil)
)

func (z zoneCollector) Describe(ch chan<- *prometheus.Desc) { ch <- zonePackets; ch <- zoneBytes }

func (z zoneCollector) Collect(ch chan<- prometheus.Metric) {
	counters, err := z.filter.Counters()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(zonePackets, err)
		return
	}
	for rule, n := range counters {
		ch <- prometheus.MustNewConstMetric(zonePackets, prometheus.CounterValue, float64(n.Packets), rule)
		ch <- prometheus.MustNewConstMetric(zoneBytes, prometheus.CounterValue, float64(n.Bytes), rule)
	}
}
