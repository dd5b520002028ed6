// Package controller is the brain of a cluster: one of a few processes that
// keep what people declare, bring each node its part of it, and find out which
// nodes are gone. It puts the parts below it together and does nothing by
// itself. That it is away changes nothing on any node.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/marathon"
	"github.com/weirproject/weir/controller/members"
	"github.com/weirproject/weir/controller/metronome"
	"github.com/weirproject/weir/controller/monitor"
	"github.com/weirproject/weir/controller/server"
	"github.com/weirproject/weir/controller/store"
	"github.com/weirproject/weir/dnsproxy"
)

// Options of a Controller.
type Options struct {
	// Member is this process's place among the controllers; Run does not close it.
	Member *members.Member
	// Listener of the API; Run closes it.
	Listener net.Listener
	Version  string
	// Range and Range6 are where named VIPs get their addresses from; the agents'
	// vip.range and vip.range6 must be the same.
	Range, Range6 netip.Prefix
	// Names are the options that the agents compile names with.
	Names dnsproxy.Options
	// Dial tries whether this controller reaches a node; nil: it leaves that to
	// the nodes.
	Dial func(ctx context.Context, n api.Node, within time.Duration) (reached bool, err error)
	// More routes of the API, by pattern; each asks the Door itself.
	More map[string]http.Handler
	// Lead runs beside what runs apps while this controller leads the others; nil:
	// nothing does.
	Lead     func(context.Context, store.Leadership) error
	Log      *slog.Logger
	Registry *prometheus.Registry
}

// DefaultRange and DefaultRange6 are where named VIPs get their addresses from.
var (
	DefaultRange  = netip.MustParsePrefix("198.18.0.0/15")
	DefaultRange6 = netip.MustParsePrefix("fd77:6569:7200::/112")
)

// DefaultNames are the options that agents compile names with when their file
// says nothing else.
func DefaultNames() dnsproxy.Options {
	return dnsproxy.Options{Domain: "weir.internal", Aliases: []string{"mesos"}}
}

// Controller is one of the cluster's controllers.
type Controller struct {
	o       Options
	hub     *hub.Hub
	monitor *monitor.Monitor
	server  *server.Server
	leads   atomic.Bool

	running running

	mu     sync.Mutex // guards what follows
	urls   []string   // of all controllers
	leader string     // URL of the one that leads
}

// New puts a controller together; nothing runs yet.
func New(o Options) (*Controller, error) {
	if o.Member == nil || o.Listener == nil || o.Log == nil {
		return nil, errors.New("make a controller: Member, Listener and Log are needed")
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	c := &Controller{o: o}
	m := o.Member
	var err error
	if c.hub, err = hub.New(hub.Options{Store: m.Store, Epoch: m.Epoch, Log: o.Log}); err != nil {
		return nil, err
	}
	c.monitor, err = monitor.New(monitor.Options{
		Probe:   func(ctx context.Context, via string, p api.Probe) (bool, error) { return c.server.Probe(ctx, via, p) },
		Judge:   func(node string, h api.NodeHealth) { c.server.Judge(node, h) },
		Orphans: func() []api.Node { return c.server.Orphans() },
		Dial:    o.Dial, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	if c.running, err = c.newRunning(); err != nil {
		return nil, err
	}
	more := maps.Clone(o.More)
	if more == nil {
		more = map[string]http.Handler{}
	}
	for _, pattern := range marathon.Patterns() {
		more[pattern] = c.running.api
	}
	for _, pattern := range metronome.Patterns() {
		more[pattern] = c.running.jobs
	}
	c.server, err = server.New(server.Options{
		Name: m.Name, Version: o.Version, Store: m.Store, Hub: c.hub, Door: m.Door, Authority: m.Authority, Audit: m.Audit,
		Watcher: c.monitor, Members: m, Controllers: c.controllers, Leads: c.leads.Load,
		Range: o.Range, Range6: o.Range6, Names: o.Names, Tasks: c.running.intake.Tell, More: more, Log: o.Log, Registry: o.Registry,
	})
	return c, err
}

// Hub of this controller: the state of now.
func (c *Controller) Hub() *hub.Hub { return c.hub }

// Server of this controller: the nodes' streams, and the API's handler.
func (c *Controller) Server() *server.Server { return c.server }

// Run is a controller until ctx ends, or until its store does, as when others
// have removed it.
func (c *Controller) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.o.Member.Run(ctx, c.lead) })
	g.Go(func() error { return c.hub.Run(ctx) })
	g.Go(func() error { return c.running.catalog.Run(ctx) })
	g.Go(func() error { return c.running.intake.Run(ctx) })
	g.Go(func() error { return c.monitor.Run(ctx) })
	g.Go(func() error { return c.server.Run(ctx) })
	g.Go(func() error { return c.server.Serve(ctx, c.o.Listener) })
	g.Go(func() error { return c.follow(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-c.o.Member.Stopped():
			return fmt.Errorf("run controller %s: its store has ended: it was removed, or its disk failed", c.o.Member.Name)
		}
	})
	return g.Wait()
}

// lead runs while this controller leads the others.
func (c *Controller) lead(ctx context.Context, held store.Leadership) error {
	c.leads.Store(true)
	defer c.leads.Store(false)
	return c.leadApps(ctx, held)
}

// controllersEvery is how often the list of controllers is read.
const controllersEvery = 5 * time.Second

// follow keeps the list of controllers that nodes are told.
func (c *Controller) follow(ctx context.Context) error {
	for {
		if list, err := c.o.Member.List(ctx); err == nil {
			var urls []string
			leader := ""
			for _, one := range list {
				if one.URL != "" {
					urls = append(urls, one.URL)
				}
				if one.Leader {
					leader = one.URL
				}
			}
			c.mu.Lock()
			c.urls, c.leader = urls, leader
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(controllersEvery):
		}
	}
}

func (c *Controller) controllers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.urls
}
