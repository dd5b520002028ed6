package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// newComponents makes the reconcilers in the order in which they are applied.
// The order is a promise to people's traffic:
//
//  1. zones: nothing new is reachable before the rules that judge it.
//  2. networks: there is a bridge before a container is attached to it.
//  3. tasks: what is to run here is begun, and what is not is told to end.
//  4. vip: a virtual IP leads to backends only once they are judged.
//  5. delivery: a node takes packets out of tunnels before it sends any.
//  6. edge: clients from outside get in only when the way behind is there.
//  7. dns: a name is published only after its virtual IP is programmed, so
//     that whoever resolves it can connect at once.
//
// Each component is compared with the kernel in every pass. One that fails
// keeps what it had applied and is tried again; those after it still run, for
// they fail safe alone: dns publishes only what vip has programmed.
func (a *Agent) newComponents() error {
	zones, err := a.newZones()
	if err != nil {
		return err
	}
	vips, err := a.newVIPs()
	if err != nil {
		return err
	}
	a.networks = a.newNetworks()
	if a.tasks, err = a.newTasks(); err != nil {
		return err
	}
	edge, err := a.newEdge(vips)
	if err != nil {
		return err
	}
	dns, err := a.newDNS(vips)
	if err != nil {
		return err
	}
	a.vips, a.edge, a.dns = vips, edge, dns
	a.answers = newAnswers(a, dns)
	a.order = []*component{
		{reconciler: zones, status: api.ComponentStatus{Name: "zones"}},
		{reconciler: a.networks, status: api.ComponentStatus{Name: "networks"}},
		{reconciler: a.tasks, status: api.ComponentStatus{Name: "tasks"}},
		{reconciler: vips, status: api.ComponentStatus{Name: "vip"}},
		{reconciler: &deliveryComponent{agent: a, vips: vips}, status: api.ComponentStatus{Name: "delivery"}},
		{reconciler: edge, status: api.ComponentStatus{Name: "edge"}},
		{reconciler: dns, status: api.ComponentStatus{Name: "dns"}},
		{reconciler: a.answers, status: api.ComponentStatus{Name: "dns-kernel"}},
	}
	return nil
}

// reconciler makes one part of the node as the snapshot wants it: it compares,
// changes what differs, and is idempotent.
type reconciler interface {
	// backend names what does the work.
	backend() string
	apply(ctx context.Context, s *api.Snapshot) (dataplane.Changes, error)
	// followsStates tells that it depends on the backends' states, so that it is
	// applied also when these alone have changed.
	followsStates() bool
	// detail is one phrase about what is applied.
	detail() string
	// close lets go without undoing anything.
	close() error
}

type component struct {
	reconciler
	status api.ComponentStatus // guarded by Agent.mu
}

// applyAll runs one pass of every component, or of those that follow the
// backends' states: these must not wait for what others have to compare.
func (a *Agent) applyAll(ctx context.Context, s *api.Snapshot, statesAlone bool) {
	all := true
	for _, c := range a.order {
		if statesAlone && !c.followsStates() {
			continue
		}
		start := time.Now()
		changes, err := c.apply(ctx, s)
		if ctx.Err() != nil {
			return
		}
		all = all && err == nil
		a.record(c, s.Revision, changes, err, time.Since(start))
	}
	if all && !statesAlone {
		a.mu.Lock()
		a.applied = true
		a.mu.Unlock()
		a.metrics.revision.Set(float64(s.Revision))
		if a.appliedRevision.Swap(s.Revision) != s.Revision && a.joined != nil {
			a.joined.wakeReport()
		}
	}
}

// record keeps the outcome of one component's pass, and logs what is news.
func (a *Agent) record(c *component, revision uint64, changes dataplane.Changes, err error, took time.Duration) {
	a.mu.Lock()
	previous := c.status
	c.status.Backend, c.status.Detail = c.backend(), c.detail()
	c.status.Repaired += uint64(changes.Repaired)
	c.status.Error = ""
	if err != nil {
		c.status.Error = err.Error()
	} else {
		c.status.Revision = revision
		if previous.Revision != revision || changes != (dataplane.Changes{}) || c.status.Applied.IsZero() {
			c.status.Applied = time.Now()
		}
	}
	now := c.status
	a.mu.Unlock()

	a.metrics.duration.WithLabelValues(now.Name).Observe(took.Seconds())
	a.metrics.repaired.WithLabelValues(now.Name).Add(float64(changes.Repaired))
	log := a.log.With("component", now.Name, "revision", revision)
	switch {
	case err != nil:
		a.metrics.failures.WithLabelValues(now.Name).Inc()
		if previous.Error != now.Error {
			log.Error("apply failed; what ran before keeps running", "error", err)
		}
	case changes.Repaired > 0:
		log.Warn("kernel state was changed by somebody else and is repaired", "repaired", changes.Repaired)
	case changes.Written+changes.Removed > 0 || previous.Revision != revision:
		log.Info("applied", "written", changes.Written, "removed", changes.Removed, "took", took)
	}
}

func (a *Agent) closeComponents() {
	var faults []error
	for i := len(a.order) - 1; i >= 0; i-- {
		if err := a.order[i].close(); err != nil {
			faults = append(faults, fmt.Errorf("close %s: %w", a.order[i].status.Name, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		a.log.Warn("stopped with errors", "error", err)
	}
}
