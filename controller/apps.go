package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/apps"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/marathon"
	"github.com/weirproject/weir/controller/metronome"
	"github.com/weirproject/weir/controller/store"
)

// running is the part of a controller that runs apps.
type running struct {
	catalog *apps.Catalog
	intake  *apps.Intake
	loop    *apps.Loop
	api     *marathon.API
	jobs    *metronome.API
}

// newRunning needs the hub.
func (c *Controller) newRunning() (r running, err error) {
	m := c.o.Member
	if r.catalog, err = apps.NewCatalog(m.Store, c.o.Log); err != nil {
		return r, err
	}
	r.intake = apps.NewIntake(r.catalog, m.Store, c.o.Log)
	r.loop, err = apps.NewLoop(apps.LoopOptions{
		Catalog: r.catalog, Hub: c.hub, Store: m.Store, Range: c.o.Range, Range6: c.o.Range6, Names: c.o.Names, NewID: rand.Text, Log: c.o.Log,
	})
	if err != nil {
		return r, err
	}
	r.api, err = marathon.New(marathon.Options{
		Catalog: r.catalog, Allow: c.allow, Record: c.record, Leader: c.leaderURL, Networks: c.networks, Version: c.o.Version, Log: c.o.Log,
	})
	if err != nil {
		return r, err
	}
	r.jobs, err = metronome.New(metronome.Options{Catalog: r.catalog, Allow: c.allow, Record: c.record, Log: c.o.Log})
	return r, err
}

// allow finds who asks and asks the Door; refusals are in the audit.
func (c *Controller) allow(r *http.Request, verb auth.Verb, noun string) (auth.Subject, error) {
	who, err := c.o.Member.Door.Subject(r)
	if err == nil {
		err = c.o.Member.Door.Allow(who, verb, noun)
	}
	var denied *auth.Denied
	if errors.As(err, &denied) || errors.Is(err, auth.ErrUnauthenticated) || errors.Is(err, auth.ErrRevoked) {
		one := auditRecord(r, who, verb, noun)
		one.Refused = err.Error()
		c.o.Member.Audit.Refuse(one)
	}
	return who, err
}

func (c *Controller) record(r *http.Request, who auth.Subject, verb auth.Verb, noun string) (store.Op, error) {
	return c.o.Member.Audit.Op(auditRecord(r, who, verb, noun))
}

func auditRecord(r *http.Request, who auth.Subject, verb auth.Verb, noun string) api.AuditRecord {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return api.AuditRecord{Subject: who.String(), Address: host, Verb: string(verb), Noun: noun}
}

// networks that apps may be in.
func (c *Controller) networks() map[string]bool {
	names := map[string]bool{}
	for _, n := range c.hub.State().Shared.Networks {
		names[n.Name] = true
	}
	return names
}

func (c *Controller) leaderURL(context.Context) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader
}

// leadApps runs apps and allots their networks' subnets, and runs what else runs
// at the leader, until ctx ends.
func (c *Controller) leadApps(ctx context.Context, held store.Leadership) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := c.running.loop.Lead(ctx, held); err != nil {
			return fmt.Errorf("run apps: %w", err)
		}
		return nil
	})
	g.Go(func() error { return c.leadSubnets(ctx, held) })
	if c.o.Lead != nil {
		g.Go(func() error { return c.o.Lead(ctx, held) })
	}
	return g.Wait()
}
