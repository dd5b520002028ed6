package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

// auditPrefix and the time, so that records sort by it, and who comes second in
// the same nanosecond is told apart.
const auditPrefix = "audit/"

// Bounds of the audit.
const (
	// AuditKept is how many records are kept; a few hundred more for a while.
	AuditKept = 5000
	// refusalsPerFlush is how many refusals are kept of each flushEvery; of more
	// only the number, so that nobody washes the records away by knocking.
	refusalsPerFlush = 20
	flushEvery       = time.Second
	trimAfter        = 500 // records written here
)

// Audit keeps what was done and what was refused.
type Audit struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	refused []api.AuditRecord
	missed  int // refusals beyond refusalsPerFlush
	written int // since the last trim
}

// NewAudit makes an audit; Run must go for refusals to be kept. A nil now is
// time.Now.
func NewAudit(s store.Store, log *slog.Logger, now func() time.Time) *Audit {
	if now == nil {
		now = time.Now
	}
	return &Audit{store: s, log: log.With("component", "audit"), now: now, written: trimAfter}
}

// Op is the record as an operation to commit together with the write that it
// is about: neither is without the other. List fills in the revision.
func (a *Audit) Op(r api.AuditRecord) (store.Op, error) {
	if r.Time.IsZero() {
		r.Time = a.now()
	}
	value, err := json.Marshal(r)
	if err != nil {
		return store.Op{}, fmt.Errorf("write the audit record: %w", err)
	}
	unique := make([]byte, 4)
	_, _ = rand.Read(unique) // never fails
	a.mu.Lock()
	a.written++
	a.mu.Unlock()
	return store.Op{Key: fmt.Sprintf("%s%019d-%s", auditPrefix, r.Time.UnixNano(), hex.EncodeToString(unique)), Value: value}, nil
}

// Write keeps the record of a write that is no commit of its own.
func (a *Audit) Write(ctx context.Context, r api.AuditRecord) error {
	op, err := a.Op(r)
	if err != nil {
		return err
	}
	if _, err := a.store.Commit(ctx, nil, []store.Op{op}); err != nil {
		return fmt.Errorf("keep the audit record: %w", err)
	}
	return nil
}

// Refuse takes note of a refusal and returns at once. It is logged, and written
// within a second.
func (a *Audit) Refuse(r api.AuditRecord) {
	if r.Time.IsZero() {
		r.Time = a.now()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refused) >= refusalsPerFlush {
		a.missed++
		return
	}
	a.refused = append(a.refused, r)
	a.log.Info("refused", "subject", r.Subject, "address", r.Address, "verb", r.Verb, "noun", r.Noun, "reason", r.Refused)
}

// List returns the newest records, at most limit, the newest first.
func (a *Audit) List(ctx context.Context, limit int) ([]api.AuditRecord, error) {
	entries, _, err := a.store.List(ctx, auditPrefix)
	if err != nil {
		return nil, err
	}
	slices.Reverse(entries)
	var all []api.AuditRecord
	for _, e := range entries[:min(limit, len(entries))] {
		var r api.AuditRecord
		if err := json.Unmarshal(e.Value, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Key, err)
		}
		if r.Refused == "" {
			r.Revision = e.Version
		}
		all = append(all, r)
	}
	return all, nil
}

// Run writes refusals and forgets the oldest records until ctx ends.
func (a *Audit) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer stop()
			a.flush(last)
			return nil
		case <-ticker.C:
			a.flush(ctx)
			a.trim(ctx)
		}
	}
}

// flush writes what was refused. What cannot be written is told in the log.
func (a *Audit) flush(ctx context.Context) {
	a.mu.Lock()
	records, missed := a.refused, a.missed
	a.refused, a.missed = nil, 0
	a.mu.Unlock()
	if missed > 0 {
		records = append(records, api.AuditRecord{
			Time: a.now(), Subject: "many", Verb: "many", Noun: "many", Refused: fmt.Sprintf("%d more refusals within %s", missed, flushEvery),
		})
	}
	var ops []store.Op
	for _, r := range records {
		if op, err := a.Op(r); err == nil {
			ops = append(ops, op)
		}
	}
	if len(ops) == 0 {
		return
	}
	if _, err := a.store.Commit(ctx, nil, ops); err != nil {
		a.log.Warn("refusals are not kept", "count", len(ops), "error", err)
	}
}

// trim forgets the oldest beyond AuditKept, now and then.
func (a *Audit) trim(ctx context.Context) {
	a.mu.Lock()
	due := a.written >= trimAfter
	if due {
		a.written = 0
	}
	a.mu.Unlock()
	if !due {
		return
	}
	entries, _, err := a.store.List(ctx, auditPrefix)
	if err != nil || len(entries) <= AuditKept {
		return
	}
	for part := range slices.Chunk(entries[:len(entries)-AuditKept], store.MaxOps) {
		ops := make([]store.Op, 0, len(part))
		for _, e := range part {
			ops = append(ops, store.Op{Key: e.Key, Delete: true})
		}
		if _, err := a.store.Commit(ctx, nil, ops); err != nil {
			a.log.Warn("old audit records stay", "error", err)
			return
		}
	}
}
