package agent

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weirproject/weir/agent/resolvconf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dnsproxy"
)

// hostOptions are those of the host's resolver configuration.
func hostOptions(c Config) resolvconf.Options {
	return resolvconf.Options{Mode: resolvconf.Mode(c.DNS.ManageResolvConf), DataDir: c.DataDir}
}

// own are the addresses that never are upstreams taken from the host: our own,
// where hosts ask them.
func (d *dnsComponent) own() []netip.Addr {
	if c := d.agent.config.DNS; c.Port == 53 {
		return c.Listen
	}
	return nil
}

// followHost has the proxy ask what the host would ask without us, as that
// changes with leases, unless the configuration names upstreams.
func (d *dnsComponent) followHost() error {
	hosts := d.host.Upstreams(d.own())
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.config.asksHost() || slices.Equal(hosts, d.hosts) {
		return nil
	}
	before := d.hosts
	d.hosts = hosts
	if err := d.proxy.SetForwarding(d.forwarding()); err != nil {
		d.hosts = before
		return err
	}
	d.agent.log.Info("host's name servers taken over", "component", "dns", "upstreams", hosts)
	return nil
}

// forwarding is the current configuration's, with the host's servers where it
// leaves the choice to the host. It wants mu held, but before the start.
func (d *dnsComponent) forwarding() dnsproxy.Forwarding {
	f := d.config.forwarding()
	if !d.config.asksHost() || len(d.hosts) == 0 {
		return f
	}
	root := dnsproxy.ForwardZone{Zone: "."}
	for _, a := range d.hosts {
		root.Upstreams = append(root.Upstreams, dnsproxy.Upstream{Protocol: dnsproxy.UDP, Address: netip.AddrPortFrom(a, 53)})
	}
	f.Zones = append(f.Zones, root)
	return f
}

// upstreams are the servers that the proxy asks, of all zones.
func (d *dnsComponent) upstreams() (all []netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, z := range d.forwarding().Zones {
		for _, u := range z.Upstreams {
			if !slices.Contains(all, u.Address) {
				all = append(all, u.Address)
			}
		}
	}
	return all
}

// tellHost makes the host ask the proxy, once it answers, or takes that back.
func (d *dnsComponent) tellHost(ctx context.Context, changes *dataplane.Changes) error {
	outcome, err := d.host.Set(ctx, resolvconf.Want{Servers: d.agent.config.DNS.Listen, Zones: d.zones()})
	switch {
	case changes == nil:
	case outcome == resolvconf.Written:
		changes.Written++
	case outcome == resolvconf.Repaired:
		changes.Repaired++
	}
	return err
}

// zones are the names that only the proxy knows.
func (d *dnsComponent) zones() []string {
	c := d.agent.config.DNS
	all := append([]string{c.Domain}, c.Aliases...)
	if c.DCOS {
		all = append(all, "thisdcos.directory", "thisdcos.global", "spartan", "zk")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for zone, upstreams := range d.config.Forward {
		if zone != "." && zone != "" && len(upstreams) > 0 {
			all = append(all, zone)
		}
	}
	for i := range all {
		all[i] = strings.ToLower(strings.TrimSuffix(all[i], "."))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// restoreHost takes back what an agent told the host, and says so in words.
func restoreHost(c Config) (told string, err error) {
	host := resolvconf.New(hostOptions(c))
	mode := host.Mode()
	did, err := host.Restore(context.Background())
	if !did {
		return "", err
	}
	return "the DNS proxy from the host's resolver (" + string(mode) + "); what was kept in " + filepath.Join(c.DataDir, "resolv.conf.original") + " is back", err
}
