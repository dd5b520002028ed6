package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/weirproject/weir/dataplane/program"
	"github.com/weirproject/weir/testenv/bench/load"
)

// SoakOptions say what happens during a Soak; zero fields take the default.
type SoakOptions struct {
	For        time.Duration // 120 s
	Rate       int           // new connections a second; 2,000
	Open       int           // connections that stay open; 1,000
	Changes    int           // of backends, at random; 10,000
	Kills      int           // of the balancer's process, with a change under way; 20
	Migrations int           // of the maps, each with an upgrade of the programs; 100
	Seed       uint64        // of what happens when
	Log        *slog.Logger
}

func (o SoakOptions) withDefaults() SoakOptions {
	number := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
	}
	number(&o.Rate, 2000)
	number(&o.Open, 1000)
	number(&o.Changes, 10000)
	number(&o.Kills, 20)
	number(&o.Migrations, 100)
	if o.For == 0 {
		o.For = 2 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// event is one thing that happens during a soak.
type event int

const (
	eventChange event = iota
	eventKill
	eventMigration
)

// soak is one under way.
type soak struct {
	options  SoakOptions
	client   *client
	owner    *owner
	job      ownerJob
	fleet    *fleet
	report   *SoakReport
	programs map[ebpf.ProgramID]bool
	maps     []ebpf.MapID
}

// Soak makes connections while everything about the balancer changes, and
// counts what breaks. All backends answer at all times, so nothing may.
func Soak(ctx context.Context, o SoakOptions) (*SoakReport, error) {
	o = o.withDefaults()
	r := &SoakReport{}
	s, err := newSite(ctx, o.Log, 1)
	if err != nil {
		return r, err
	}
	defer s.close()
	k := &soak{options: o, client: s.clients[0], report: r, programs: map[ebpf.ProgramID]bool{}}
	k.fleet = newFleet(rand.New(rand.NewPCG(o.Seed, 0)))
	services := uint32(len(k.fleet.table().Services))
	k.job = ownerJob{
		PinDir: k.client.pins, Cgroup: k.client.cgroup, VerifyEvery: 10 * time.Second, Table: k.fleet.table(),
		// The id 0 is nobody's.
		Sizes: program.Sizes{Services: services + 1}, Limits: program.Sizes{Services: services + 1},
	}
	if k.owner, err = startOwner(k.job); err != nil {
		return r, err
	}
	defer func() { k.owner.kill() }()
	if err := k.look(); err != nil {
		return r, err
	}
	return r, k.run(ctx)
}

// run makes the events while the client makes its connections.
func (k *soak) run(ctx context.Context) error {
	type outcome struct {
		result load.Result
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	traffic := make(chan outcome, 1)
	go func() {
		result, err := k.client.traffic.Do(ctx, load.Job{
			Op: load.Soak, Targets: soakFrontends(0, soakServices), OpenTargets: soakFrontends(0, soakServices/2),
			For: k.options.For, Rate: k.options.Rate, Open: k.options.Open,
		})
		traffic <- outcome{result, err}
	}()
	err := k.events(ctx)
	if err != nil {
		cancel() // what the traffic would show is not what was asked for
	}
	end := <-traffic
	r := k.report
	r.Elapsed, r.Connections, r.OpenRequests, r.Wrong = end.result.Elapsed, end.result.Count, end.result.OpenCount, end.result.Wrong
	r.Failures, r.OpenFailures = end.result.Failures, end.result.OpenFailures
	r.P50, r.P99 = microseconds(end.result.Latency.Quantile(0.5)), microseconds(end.result.Latency.Quantile(0.99))
	return errors.Join(err, end.err)
}

// events spreads all of them, in an order by chance, over most of the time.
func (k *soak) events(ctx context.Context) error {
	o := k.options
	var all []event
	for e, n := range map[event]int{eventChange: o.Changes, eventKill: o.Kills, eventMigration: o.Migrations} {
		all = append(all, slices.Repeat([]event{e}, n)...)
	}
	slices.Sort(all)
	k.fleet.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	begin := time.Now()
	for i, e := range all {
		due := begin.Add(o.For * 9 / 10 * time.Duration(i) / time.Duration(len(all)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(due)):
		}
		if time.Since(begin) > o.For {
			o.Log.Warn("time is up before all has happened", "happened", i, "of", len(all))
			return nil
		}
		if err := k.happen(e); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return nil
}

func (k *soak) happen(e event) error {
	switch e {
	case eventKill:
		return k.kill()
	case eventMigration:
		return k.migrate()
	default:
		k.report.Changes++
		if err := k.owner.begin(k.fleet.change()); err != nil {
			return err
		}
		return k.owner.done()
	}
}

// kill ends the owner somewhere in a Set.
func (k *soak) kill() error {
	if err := k.owner.begin(k.fleet.change()); err != nil {
		return err
	}
	time.Sleep(time.Duration(k.fleet.random.IntN(2000)) * time.Microsecond)
	k.owner.kill()
	k.report.Kills++
	return k.restart()
}

// restart starts another owner with the table as it is wanted by now.
func (k *soak) restart() (err error) {
	k.job.Table = k.fleet.table()
	if k.owner, err = startOwner(k.job); err != nil {
		return err
	}
	return k.look()
}

// migrate adds a service for which there is no room, in a process that may grow
// the maps by as much. The maps are replaced, and with them the programs.
func (k *soak) migrate() error {
	if err := k.owner.stop(); err != nil {
		return err
	}
	k.fleet.grow()
	k.job.Limits.Services++
	before := k.maps
	if err := k.restart(); err != nil {
		return err
	}
	if !slices.Equal(before, k.maps) {
		k.report.Migrations++
	}
	return nil
}

// look finds out which program runs at connect() and on which maps.
func (k *soak) look() error {
	programs, err := attached(k.client.cgroup)
	if err != nil {
		return err
	}
	defer closeAll(programs)
	if len(programs["connect4"]) != 1 {
		return fmt.Errorf("%d programs are at connect4, want 1", len(programs["connect4"]))
	}
	info, err := programs["connect4"][0].Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	if len(k.programs) > 0 && !k.programs[id] {
		k.report.Upgrades++
	}
	k.programs[id] = true
	k.maps, _ = info.MapIDs()
	slices.Sort(k.maps)
	return nil
}

func soakFrontends(from, to int) (all []netip.AddrPort) {
	for i := from; i < to; i++ {
		all = append(all, soakFrontend(i))
	}
	return all
}
