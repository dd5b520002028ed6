package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones"
	"github.com/weirproject/weir/zones/policyfile"
)

const (
	// maxConfirm is the longest that a policy may wait to be confirmed.
	maxConfirm = 24 * time.Hour
	// unasked is how long a policy waits that nobody asked to confirm: it is, as
	// soon as the kernel has it.
	unasked = 30 * time.Second
	// applyPatience is how long the one who applies a policy waits for the kernel.
	applyPatience = 8 * time.Second
)

// newPolicyFile is where a policy is written when no file has one.
func (a *Agent) newPolicyFile() string {
	if len(a.config.State) == 0 {
		return ""
	}
	return filepath.Join(a.config.State[0], "policy.yaml")
}

// summary says in words what one policy opens and closes, compared to another.
func (a *Agent) summary(old, now *api.Policy) string {
	s := a.snapshot.Load()
	switch {
	case now == nil:
		return "no policy: everything passes"
	case old == nil || s == nil:
		return "the first policy"
	}
	at := time.Now()
	state := a.zonesState(s)
	return policyfile.Summary(policyfile.Diff(zones.Bind(old, state, at), zones.Bind(now, state, at)))
}

// applyPolicy enforces a policy until its deadline, or for good when nobody asks
// for a confirmation. One that the kernel does not take is gone again.
func (a *Agent) applyPolicy(ctx context.Context, r api.ZoneApply) (api.ZoneApplied, error) {
	var out api.ZoneApplied
	s, err := a.mayChangePolicy(r.Confirm.Std())
	if err != nil {
		return out, err
	}
	f, err := policyfile.Parse(r.File, []byte(r.Text))
	if err != nil {
		return out, &httpError{http.StatusUnprocessableEntity, err}
	}
	old, now := a.views(s, f.Policy)
	out.Warnings = f.Check(now)
	if err := policyfile.Faults(out.Warnings); err != nil {
		return out, &httpError{http.StatusUnprocessableEntity, err}
	}
	if !r.Force {
		if err := lockouts(s, old, now, r.SSH); err != nil {
			return out, &httpError{http.StatusConflict, err}
		}
	}
	out.Diff = policyfile.Diff(old, now)
	e := historyEntry{File: r.File, Text: r.Text, Digest: digest(f.Policy)}
	e.By, e.Summary = r.By, policyfile.Summary(out.Diff)
	wait := r.Confirm.Std()
	if wait == 0 {
		wait = unasked
	}
	if out.ID, out.File, err = a.zones.policies.begin(f, s.Policy, e, wait); err != nil {
		return out, err
	}
	a.readState()
	fault := a.awaitZones(ctx, s.Revision, f.Policy)
	if fault == nil && r.Confirm == 0 && a.zones.policies.waiting() != nil {
		_, fault = a.confirmPolicy()
	}
	if fault != nil {
		a.rollBack("it could not be enforced: " + fault.Error())
		return out, fault
	}
	entry, err := a.zones.policies.entry(out.ID)
	out.ZoneChange = entry.ZoneChange
	return out, err
}

// mayChangePolicy says why no policy can be applied now.
func (a *Agent) mayChangePolicy(confirm time.Duration) (*api.Snapshot, error) {
	conflict := func(format string, args ...any) error {
		return &httpError{http.StatusConflict, fmt.Errorf(format, args...)}
	}
	s := a.snapshot.Load()
	switch {
	case len(a.config.State) == 0:
		return nil, conflict("this node has its policy from the controllers: apply it there")
	case s == nil:
		return nil, &httpError{http.StatusServiceUnavailable, errNotReady}
	case confirm < 0 || confirm > maxConfirm:
		return nil, &httpError{http.StatusBadRequest, fmt.Errorf("confirm %s is not between 0 and %s", confirm, maxConfirm)}
	}
	if w := a.zones.policies.waiting(); w != nil {
		return nil, conflict("change %d by %s waits to be confirmed until %s: confirm it, or take it back with weir zone rollback", w.ID, w.By, w.Deadline.Format(time.DateTime))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refused) > 0 {
		r := a.refused[0]
		return nil, conflict("the state's files are refused, so that no change of theirs is taken: mend %s:%d first: %s", r.File, r.Line, r.Reason)
	}
	return s, nil
}

// views are what the policy in force means, and what another would.
func (a *Agent) views(s *api.Snapshot, p *api.Policy) (old, now *zones.View) {
	state, at := a.zonesState(s), time.Now()
	state.Learnt = a.zones.learner.state()
	return zones.Bind(s.Policy, state, at), zones.Bind(p, state, at)
}

// begin makes the policy the one that the next reading of the state finds, until
// its deadline. Nothing is in the kernel yet.
func (p *policies) begin(f *policyfile.File, previous *api.Policy, e historyEntry, confirm time.Duration) (id int, file string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending != nil { // somebody was faster
		return 0, "", &httpError{http.StatusConflict, fmt.Errorf("change %d waits to be confirmed", p.pending.ID)}
	}
	if err := canWrite(p.target.File); err != nil {
		return 0, "", fmt.Errorf("it could not be confirmed: %w", err)
	}
	next := &pendingPolicy{
		File: f.Name, Text: string(f.Text), Policy: f.Policy, Previous: previous, Base: p.files,
		Deadline: time.Now().Add(confirm), Heard: p.agent.heard(),
	}
	if next.ID = 1; len(p.history) > 0 {
		next.ID = p.history[len(p.history)-1].ID + 1
	}
	if err := save(p.pendingPath(), next); err != nil {
		return 0, "", fmt.Errorf("keep the change on disk before it is made: %w", err)
	}
	p.pending, e.Deadline = next, next.Deadline
	p.log.Info("policy waits to be confirmed", "change", next.ID, "by", e.By, "deadline", next.Deadline, "summary", e.Summary)
	p.nudge()
	return p.add(e, api.ChangePending), p.target.File, nil
}

// confirm writes the pending policy into the state's files. Who has read these
// before must have taken them over by then: nothing waits any more that would
// tell it that they are old.
func (p *policies) confirm() (api.ZoneChange, error) {
	p.agent.reading.Lock()
	defer p.agent.reading.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		return api.ZoneChange{}, &httpError{http.StatusNotFound, errors.New("no change waits to be confirmed; see weir zone history")}
	}
	if err := writePolicy(p.target, []byte(p.pending.Text)); err != nil {
		return api.ZoneChange{}, err
	}
	id := p.pending.ID
	p.log.Info("policy confirmed", "change", id, "file", p.target.File)
	p.settle(api.ChangeInForce, "")
	for _, e := range p.history {
		if e.ID == id {
			return e.ZoneChange, nil
		}
	}
	return api.ZoneChange{ID: id, State: api.ChangeInForce}, nil
}

// rollBack gives the pending policy up and enforces the one before, whatever
// the state's files are like now. It tells whether there was one.
func (a *Agent) rollBack(why string) bool {
	a.reading.Lock()
	defer a.reading.Unlock()
	p := a.zones.policies
	p.mu.Lock()
	pending := p.pending
	if pending != nil {
		p.drop(why)
	}
	p.mu.Unlock()
	s := a.snapshot.Load()
	if pending == nil || s == nil {
		return pending != nil
	}
	back := *s
	back.Policy = pending.Previous
	back.Revision++
	if err := save(a.snapshotPath(), &back); err != nil {
		a.log.Error("snapshot not kept on disk", "revision", back.Revision, "error", err)
	}
	a.snapshot.Store(&back)
	a.poke()
	return true
}

// awaitZones waits until the kernel enforces the policy.
func (a *Agent) awaitZones(ctx context.Context, before uint64, p *api.Policy) error {
	want := digest(p)
	var seen *api.Snapshot
	ctx, cancel := context.WithTimeout(ctx, applyPatience)
	defer cancel()
	for {
		s := a.snapshot.Load()
		if s != seen && digest(s.Policy) != want {
			return fmt.Errorf("the policy was not taken over: %w", a.notReady())
		}
		seen = s
		for _, c := range a.Status().Components {
			switch {
			case c.Name != "zones":
			case c.Revision >= s.Revision:
				return nil
			case c.Error != "" && s.Revision > before:
				return errors.New(c.Error)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the kernel does not have it within %s", applyPatience)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
