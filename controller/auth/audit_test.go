package auth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/store"
)

func newAudit(s store.Store) *Audit {
	return NewAudit(s, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
}

func TestWriteAndItsRecordAreOne(t *testing.T) {
	s := store.NewMem()
	a := newAudit(s)
	op, err := a.Op(api.AuditRecord{Subject: "operator/ann", Verb: "put", Noun: "services/shop/web"})
	if err != nil {
		t.Fatal(err)
	}
	revision, err := s.Commit(t.Context(), nil, []store.Op{{Key: "x"}, op})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []store.Condition{{Key: "x"}}, []store.Op{{Key: "x"}, op}); err == nil {
		t.Fatal("no conflict")
	}
	if err := a.Write(t.Context(), api.AuditRecord{Subject: "operator/bob"}); err != nil {
		t.Fatal(err)
	}
	all, err := a.List(t.Context(), 10)
	if err != nil || len(all) != 2 || all[0].Subject != "operator/bob" || all[1].Revision != revision || all[1].Time.IsZero() {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestRefusalsAreKeptAndFloodsCounted(t *testing.T) {
	s := store.NewMem()
	a := newAudit(s)
	for i := range 100 {
		a.Refuse(api.AuditRecord{Subject: "anonymous", Noun: fmt.Sprint(i), Refused: "no"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // writes what is left and ends
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	all, err := a.List(t.Context(), 1000)
	if err != nil || len(all) != refusalsPerFlush+1 {
		t.Fatalf("got %d, %v", len(all), err)
	}
	if want := "80 more refusals within 1s"; all[0].Refused != want || all[0].Revision != 0 {
		t.Errorf("the last is %+v, want %q", all[0], want)
	}
}

func TestOldestRecordsAreForgotten(t *testing.T) {
	s := store.NewMem()
	a := newAudit(s)
	for i := range AuditKept + 300 {
		if err := a.Write(t.Context(), api.AuditRecord{Time: time.Unix(int64(i), 0), Noun: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	a.trim(t.Context())
	all, err := a.List(t.Context(), 2*AuditKept)
	if err != nil || len(all) != AuditKept || all[len(all)-1].Noun != "300" {
		t.Errorf("got %d, %v", len(all), err)
	}
}
