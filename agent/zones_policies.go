package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
	"github.com/weirproject/weir/zones/policyfile"
)

// policies keeps which policy is in force, which one waits to be confirmed, and
// what there was before.
//
// The state's files are people's: what they say is in force. A policy that is
// applied for a while stands in their place without being in them; it is written
// into them when it is confirmed. So a policy that nobody has proven is never
// read by another agent, and whatever happens to this one, the files have the
// last policy that was good. What waits is on disk before the kernel has it.
type policies struct {
	agent *Agent
	log   *slog.Logger
	wake  chan struct{} // a change has begun or ended

	mu      sync.Mutex // guards what follows
	pending *pendingPolicy
	history []historyEntry // the newest last
	// current is the policy in force with its place; nil while it is not known.
	current *policyfile.File
	// files is the digest of the policy in the files; target where one is written.
	files  string
	target place
	// stale tells that the snapshot on disk has another policy than is in force.
	stale bool
}

// place is where a policy stands: a file, and the line of its document; 0 when
// the file is to be made.
type place struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// pendingPolicy is enforced until its deadline, unless somebody confirms it.
type pendingPolicy struct {
	ID       int         `json:"id"`
	File     string      `json:"file"` // as the caller calls it
	Text     string      `json:"text"`
	Policy   *api.Policy `json:"policy"`
	Previous *api.Policy `json:"previous"`
	// Base is the digest of the policy in the files, in whose place it stands.
	Base     string    `json:"base"`
	Deadline time.Time `json:"deadline"`
	// Heard are the others that this node heard of, by kind, when it began.
	Heard map[string][]string `json:"heard,omitempty"`
}

func newPolicies(a *Agent) *policies {
	p := &policies{agent: a, log: a.log.With("component", "zones"), wake: make(chan struct{}, 1)}
	if _, err := load(p.historyPath(), &p.history); err != nil {
		p.log.Warn("history of policies discarded", "error", err)
		p.history = nil
	}
	var pending pendingPolicy
	switch found, err := load(p.pendingPath(), &pending); {
	case err != nil:
		p.log.Warn("pending policy discarded", "error", err)
	case found:
		p.pending = &pending
	}
	return p
}

func (p *policies) pendingPath() string { return p.agent.dataPath("zones-pending.json") }
func (p *policies) historyPath() string { return p.agent.dataPath("zones-history.json") }

// digest is the same for policies that say the same; empty for none.
func digest(p *api.Policy) string {
	if p == nil {
		return ""
	}
	text, err := json.Marshal(p)
	if err != nil {
		return "" // a policy is nothing but values
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// policyOf is the snapshot's, if there is one.
func policyOf(s *api.Snapshot) *api.Policy {
	if s == nil {
		return nil
	}
	return s.Policy
}

// waiting is the change that waits to be confirmed; nil: none.
func (p *policies) waiting() *api.ZoneChange {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		return nil
	}
	for _, e := range p.history {
		if e.ID == p.pending.ID {
			return &e.ZoneChange
		}
	}
	return &api.ZoneChange{ID: p.pending.ID, State: api.ChangePending, Deadline: p.pending.Deadline}
}

// atStart puts the pending policy into the snapshot that was kept, which has
// the one before, or gives it up when its time is over.
func (p *policies) atStart(s *api.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.pending == nil:
	case !time.Now().Before(p.pending.Deadline):
		p.drop("nobody confirmed it before its deadline, while the agent was down")
	default:
		s.Policy = p.pending.Policy
		p.nudge()
	}
}

// override puts the pending policy in the place of the one in the files, unless
// these have changed since: who edits them has the last word.
func (p *policies) override(d *documents) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = digest(d.policy)
	p.target = place{File: p.agent.newPolicyFile()}
	if source := d.sources[policyKey]; source != nil {
		p.target = place{source.File, source.Line}
	}
	if p.pending == nil {
		return
	}
	switch {
	case p.files == digest(p.pending.Policy):
		p.settle(api.ChangeInForce, "")
		return
	case p.files != p.pending.Base:
		p.drop("the policy in the state's files was changed meanwhile, and counts")
		return
	case !time.Now().Before(p.pending.Deadline):
		p.drop("nobody confirmed it before its deadline")
		return
	}
	f, err := policyfile.Parse(p.pending.File, []byte(p.pending.Text))
	if err != nil { // it was read before
		p.drop(err.Error())
		return
	}
	d.policy, d.sources[policyKey] = f.Policy, sourceOf(f)
}

// policyKey is the policy's among the sources of documents.
var policyKey = sourceKey(&api.Policy{})

// sourceOf reads a policy's places again.
func sourceOf(f *policyfile.File) *document.Source {
	documents, err := document.Parse(f.Name, f.Text)
	if err != nil || len(documents) == 0 {
		return &document.Source{File: f.Name}
	}
	return documents[0].Source
}

// kept is the snapshot as it goes to disk: never with a policy that waits.
func (p *policies) kept(s *api.Snapshot) *api.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil || digest(s.Policy) != digest(p.pending.Policy) {
		return s
	}
	kept := *s
	kept.Policy = p.pending.Previous
	return &kept
}

// drop gives the pending policy up. It wants mu held.
func (p *policies) drop(why string) {
	p.log.Warn("policy rolled back", "change", p.pending.ID, "reason", why)
	p.settle(api.ChangeRolledBack, why)
}

// settle ends the waiting. It wants mu held.
func (p *policies) settle(state api.ZoneChangeState, why string) {
	id := p.pending.ID
	p.pending, p.stale = nil, true
	if err := os.Remove(p.pendingPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Error("pending policy stays on disk", "error", err)
	}
	for i := range p.history {
		if e := &p.history[i]; e.ID == id {
			if j := p.inForce(); j >= 0 && state == api.ChangeInForce {
				p.history[j].State = api.ChangeReplaced
			}
			e.State, e.Reason, e.Deadline = state, why, time.Time{}
		}
	}
	p.keepHistory()
	p.nudge()
}

// nudge wakes run; it never blocks.
func (p *policies) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
