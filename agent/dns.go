package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/agent/resolvconf"
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
	host  *resolvconf.Host
	// loaded is the configuration as it was read at the start.
	loaded Config
	tasks  taskNames
	reach  askable

	// The inputs of the table that is published, to compile only on a change.
	snapshot   *api.Snapshot
	programmed []string
	up         []string

	added []netip.Addr // addresses that an earlier pass put on lo
	names int
	// notices are what the table has to tell people.
	notices []string
	stop    func() error
	drain   func(within time.Duration)
	// sockets are those that another process had opened, until start.
	sockets []*os.File

	mu sync.Mutex // guards what follows
	// config is the current one; what it may differ in from the agent's own is in
	// hotDNS.
	config DNSConfig
	// hosts are the servers that the host would ask, where these are the upstreams.
	hosts []netip.Addr
	// needsRestart tells that the file has changes that wait for one.
	needsRestart bool
}

func (a *Agent) newDNS(vips *vipComponent) (*dnsComponent, error) {
	c := a.config.DNS
	d := &dnsComponent{agent: a, vips: vips, loaded: a.config, config: c, host: resolvconf.New(hostOptions(a.config))}
	if len(c.Listen) == 0 {
		return d, nil
	}
	if c.asksHost() {
		d.hosts = d.host.Upstreams(d.own())
	}
	options, err := a.serverOptions(c)
	if err != nil {
		return nil, err
	}
	options.Forwarding = d.forwarding()
	if d.proxy, err = dnsproxy.New(options); err != nil {
		return nil, fmt.Errorf("set up the DNS proxy: %w", err)
	}
	return d, nil
}

// serverOptions are the proxy's, but for whom it asks.
func (a *Agent) serverOptions(c DNSConfig) (dnsproxy.ServerOptions, error) {
	o := dnsproxy.ServerOptions{
		Listen: c.listen(), StaleAfter: c.StaleAfter.Std(), StaleFor: c.StaleFor.Std(), ResponseRate: c.ResponseRate,
		CacheEntries: c.CacheEntries, CacheBytes: c.CacheBytes, NSID: c.NSID, Version: c.Version, EmptyZones: c.EmptyZones, Dnstap: c.Dnstap,
		ListenTLS:  c.TLS.listen(),
		Registerer: a.registry, Log: a.log.With("component", "dns"),
		Learner: a.zones.dnsLearner(),
	}
	var err error
	if o.RootCAs, err = certificates(c.UpstreamCA); err != nil {
		return o, err
	}
	if len(c.TLS.Listen) > 0 {
		o.TLS, err = serverTLS(c.TLS, a.log)
	}
	return o, err
}

func (d *dnsComponent) backend() string {
	if d.proxy == nil {
		return "off"
	}
	return "proxy"
}

func (d *dnsComponent) apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error) {
	if d.proxy == nil {
		return dataplane.Changes{}, d.tellHost(ctx, nil)
	}
	listen := d.agent.config.DNS.addresses()
	changes, err := link.SetLoopback(listen, d.added)
	if err != nil {
		return changes, err
	}
	d.added = listen
	if err := d.followHost(); err != nil {
		return changes, err
	}
	if err := d.publish(s); err != nil {
		return changes, err
	}
	if err := d.start(ctx); err != nil {
		return changes, err
	}
	return changes, d.tellHost(ctx, &changes)
}

// publish swaps the table when what it is made of has changed.
func (d *dnsComponent) publish(s *api.Snapshot) error {
	programmed, up := d.vips.programmedNames(), d.upBackends(s)
	if s == d.snapshot && slices.Equal(programmed, d.programmed) && slices.Equal(up, d.up) {
		return nil
	}
	options := d.agent.config.dnsOptions(d.vips.published(), d.vips.isUp)
	options.Previous = d.proxy.Table()
	options.Tasks = d.tasks.of(s)
	// Serials go on growing over a restart.
	options.Serial = uint32(d.agent.started.Unix())
	table, err := dnsproxy.Compile(s, options)
	if err != nil {
		return fmt.Errorf("compile the names: %w", err)
	}
	d.agent.answers.swap(d.proxy, table)
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
// told of a name that it does not exist because it was not known yet. The proxy
// outlives ctx, for the agent after this one may take its sockets over.
func (d *dnsComponent) start(ctx context.Context) error {
	if d.stop != nil {
		return nil
	}
	given := d.sockets
	d.sockets = nil
	adopted, err := d.proxy.ListenWith(given)
	if err != nil {
		return err
	}
	if len(given) > 0 {
		d.agent.log.Info("sockets taken over", "component", "dns", "given", len(given), "adopted", adopted)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error { return d.proxy.Run(ctx) })
	d.stop = func() error { cancel(); return g.Wait() }
	d.drain = func(within time.Duration) {
		until, done := context.WithTimeout(ctx, within)
		defer done()
		d.proxy.Drain(until)
	}
	return d.agent.served()
}

func (d *dnsComponent) followsStates() bool { return true }

func (d *dnsComponent) detail() string {
	if d.proxy == nil {
		return "no dns.listen address: no proxy"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	text := fmt.Sprintf("%d names at %v", d.names, d.agent.config.DNS.Listen)
	if mode := d.host.Mode(); mode != resolvconf.Off {
		text += fmt.Sprintf("; the host asks here (%s)", mode)
	}
	if d.needsRestart {
		text += "; the configuration has changes that need a restart"
	}
	return text
}

// close stops the proxy, unless the agent's successor is to tell when. Where
// somebody keeps the sockets, what is not read yet stays in them.
func (d *dnsComponent) close() error {
	if d.stop == nil || d.agent.successor != nil {
		return nil
	}
	if d.agent.keepSockets != nil {
		d.drain(stopDrain)
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
