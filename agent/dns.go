package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/link"
	"github.com/weirproject/weir/dnsproxy"
)

// dnsComponent keeps the proxy's address on lo, its sockets open and its table
// of names current.
type dnsComponent struct {
	agent *Agent
	vips  *vipComponent
	proxy *dnsproxy.Proxy // nil: off

	// The inputs of the table that is published, to compile only on a change.
	snapshot   *api.Snapshot
	programmed []string
	up         []string

	added []netip.Addr // addresses that an earlier pass put on lo
	names int
	// notices are what the table has to tell people.
	notices []string
	stop    func() error
}

func (a *Agent) newDNS(vips *vipComponent) (*dnsComponent, error) {
	d := &dnsComponent{agent: a, vips: vips}
	if len(a.config.DNS.Listen) == 0 {
		return d, nil
	}
	c := a.config.DNS
	roots, err := certificates(c.UpstreamCA)
	if err != nil {
		return nil, err
	}
	proxy, err := dnsproxy.New(dnsproxy.ServerOptions{
		Listen: c.listen(), Forwarding: c.forwarding(), RootCAs: roots,
		StaleAfter: c.StaleAfter.Std(), StaleFor: c.StaleFor.Std(), ResponseRate: c.ResponseRate,
		CacheEntries: c.CacheEntries, CacheBytes: c.CacheBytes,
		Registerer: a.registry, Log: a.log.With("component", "dns"),
	})
	if err != nil {
		return nil, fmt.Errorf("set up the DNS proxy: %w", err)
	}
	d.proxy = proxy
	return d, nil
}

// certificates reads a file of them; nil means the system's.
func certificates(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the upstreams' certificates (dns.upstream_ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the upstreams' certificates (dns.upstream_ca): %s has none in PEM", file)
	}
	return pool, nil
}

func (d *dnsComponent) backend() string {
	if d.proxy == nil {
		return "off"
	}
	return "proxy"
}

func (d *dnsComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if d.proxy == nil {
		return dataplane.Changes{}, nil
	}
	changes, err := link.SetLoopback(d.agent.config.DNS.Listen, d.added)
	if err != nil {
		return changes, err
	}
	d.added = d.agent.config.DNS.Listen
	if err := d.publish(s); err != nil {
		return changes, err
	}
	return changes, d.start(ctx)
}

// publish swaps the table when what it is made of has changed.
func (d *dnsComponent) publish(s *api.Snapshot) error {
	programmed, up := d.vips.programmedNames(), d.upBackends(s)
	if s == d.snapshot && slices.Equal(programmed, d.programmed) && slices.Equal(up, d.up) {
		return nil
	}
	options := d.agent.config.dnsOptions(d.vips.published(), d.vips.isUp)
	options.Previous = d.proxy.Table()
	// Serials go on growing over a restart.
	options.Serial = uint32(d.agent.started.Unix())
	table, err := dnsproxy.Compile(s, options)
	if err != nil {
		return fmt.Errorf("compile the names: %w", err)
	}
	d.proxy.Set(table)
	if notices := table.Notices(); !slices.Equal(notices, d.notices) {
		for _, notice := range notices {
			d.agent.log.Warn("name is not as asked for", "component", "dns", "notice", notice)
		}
		d.notices = notices
	}
	d.snapshot, d.programmed, d.up, d.names = s, programmed, up, table.Len()
	return nil
}

func (d *dnsComponent) upBackends(s *api.Snapshot) []string {
	var up []string
	for _, service := range s.Services {
		for _, b := range service.Backends {
			if d.vips.isUp(service, b) {
				up = append(up, serviceKey(service)+" "+b.Address.String())
			}
		}
	}
	return up
}

// start opens the sockets after the first table is in place, so that nobody is
// told of a name that it does not exist because it was not known yet.
func (d *dnsComponent) start(ctx context.Context) error {
	if d.stop != nil {
		return nil
	}
	if err := d.proxy.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error { return d.proxy.Run(ctx) })
	d.stop = func() error { cancel(); return g.Wait() }
	return nil
}

func (d *dnsComponent) followsStates() bool { return true }

func (d *dnsComponent) detail() string {
	if d.proxy == nil {
		return "no dns.listen address: no proxy"
	}
	return fmt.Sprintf("%d names at %v", d.names, d.agent.config.DNS.Listen)
}

func (d *dnsComponent) close() error {
	if d.stop == nil {
		return nil
	}
	return d.stop()
}

// dnsOptions are the options of the names' compiler. Without published every
// VIP's name counts as programmed.
func (c Config) dnsOptions(published func(service string, protocol api.Protocol) bool, up func(api.Service, api.Backend) bool) dnsproxy.Options {
	o := dnsproxy.Options{Domain: c.DNS.Domain, Aliases: c.DNS.Aliases, Programmed: published, Up: up, DCOS: c.DNS.DCOS, DCOSCluster: c.DNS.DCOSCluster}
	if len(c.DNS.Listen) > 0 {
		o.Listen = c.DNS.Listen[0]
	}
	return o
}
