package agent

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/zones/policyfile"
)

// historyLength is how many policies are kept to go back to.
const historyLength = 50

// historyEntry is a policy that was in force.
type historyEntry struct {
	api.ZoneChange
	File   string `json:"file"`
	Text   string `json:"text"`
	Digest string `json:"digest"`
}

// took notes the policy that was taken over with the documents. One that is new
// in the files goes into the history.
func (p *policies) took(d *documents, previous *api.Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.agent.snapshot.Load(); p.stale && p.pending == nil && s != nil {
		if err := save(p.agent.snapshotPath(), s); err != nil {
			p.log.Error("snapshot not kept on disk", "revision", s.Revision, "error", err)
		} else {
			p.stale = false
		}
	}
	p.current = nil
	source := d.sources[policyKey]
	if source != nil {
		p.current = policyfile.At(d.policy, source)
	}
	if p.pending != nil {
		return
	}
	now := p.files
	if i := p.inForce(); i >= 0 && p.history[i].Digest == now || i < 0 && now == "" {
		return
	}
	e := historyEntry{Digest: now}
	e.By, e.Summary = "the state's files", p.agent.summary(previous, d.policy)
	if source != nil {
		text, err := os.ReadFile(source.File)
		if err != nil {
			return // it is gone again, and so is the policy
		}
		_, document, _ := policyfile.Cut(text, source.Line)
		e.File, e.Text = source.File, string(document)
	}
	p.add(e, api.ChangeInForce)
}

// inForce is the place of the entry that is; -1: none.
func (p *policies) inForce() int {
	return slices.IndexFunc(p.history, func(e historyEntry) bool { return e.State == api.ChangeInForce })
}

// add puts a policy into the history. It wants mu held.
func (p *policies) add(e historyEntry, state api.ZoneChangeState) int {
	e.ID, e.Time, e.State = 1, time.Now(), state
	if n := len(p.history); n > 0 {
		e.ID = p.history[n-1].ID + 1
	}
	if i := p.inForce(); i >= 0 && state == api.ChangeInForce {
		p.history[i].State = api.ChangeReplaced
	}
	p.history = append(p.history, e)
	p.trim()
	p.keepHistory()
	return e.ID
}

// trim forgets the oldest entries, but never what is in force or pending.
func (p *policies) trim() {
	for len(p.history) > historyLength {
		i := slices.IndexFunc(p.history, func(e historyEntry) bool {
			return e.State != api.ChangeInForce && e.State != api.ChangePending
		})
		if i < 0 {
			return
		}
		p.history = slices.Delete(p.history, i, i+1)
	}
}

func (p *policies) keepHistory() {
	if err := save(p.historyPath(), p.history); err != nil {
		p.log.Error("history of policies not kept", "error", err)
	}
}

// entry of the history with the id.
func (p *policies) entry(id int) (historyEntry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.history {
		if e.ID == id {
			return e, nil
		}
	}
	return historyEntry{}, fmt.Errorf("there is no change %d in the history; see weir zone history", id)
}
