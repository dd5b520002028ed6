package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/nft"
	"github.com/weirproject/weir/zones"
)

// zonesComponent makes the packet filter enforce the policy.
type zonesComponent struct {
	agent    *Agent
	filter   *nft.Filter
	compiler zones.Compiler
	off      bool
	mode     string
	ruleset  *dataplane.Ruleset
	next     time.Time // when a rule expires
}

func (a *Agent) newZones() (*zonesComponent, error) {
	c := &zonesComponent{agent: a, off: a.config.Zones.Mode == "off", mode: a.config.Zones.Mode}
	if err := nft.Supported(); err != nil {
		if c.off {
			return c, nil
		}
		return nil, fmt.Errorf("zones need nftables (set zones.mode to off to go without): %w", err)
	}
	var err error
	c.filter, err = nft.New(nft.Options{Log: a.log, Mode: nft.Mode(c.mode), VerifyEvery: verifyInterval})
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
		now := time.Now()
		result, err := c.compiler.Compile(s.Policy, c.agent.zonesState(s), zones.Options{Self: s.Node, Links: links(), Now: now})
		if err != nil {
			return dataplane.Changes{}, fmt.Errorf("compile the policy: %w", err)
		}
		ruleset = result.Ruleset
		if next := result.Next; !next.IsZero() && next != c.next {
			c.next = next
			time.AfterFunc(max(next.Sub(now), minPokeDelay), c.agent.poke)
		}
	}
	changes, err := c.filter.Set(ctx, ruleset)
	if err == nil {
		c.ruleset = ruleset
	}
	return changes, err
}

// zonesState is what the policy is about.
func (a *Agent) zonesState(s *api.Snapshot) zones.State {
	state := zones.StateOf(s)
	for _, u := range a.config.DNS.Upstreams {
		state.Own = append(state.Own, u.Address)
	}
	return state
}

// links are the node's interfaces with their networks; none when they cannot be
// listed, so that nothing counts as spoofed.
func links() (all []zones.Link) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		l := zones.Link{Name: i.Name}
		addresses, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				l.Prefixes = append(l.Prefixes, p)
			}
		}
		all = append(all, l)
	}
	return all
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
