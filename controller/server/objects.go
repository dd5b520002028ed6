package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

// ownWithin is how long a read waits for what was written here before.
const ownWithin = time.Second

// known waits until this controller knows the state, and what was written
// through it.
func (s *Server) known(r *http.Request) error {
	select {
	case <-s.o.Hub.Ready():
	case <-r.Context().Done():
		return fmt.Errorf("%w: this controller does not know the state yet", store.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(r.Context(), ownWithin)
	defer cancel()
	_ = s.o.Hub.Wait(ctx, s.committed.Load()) // without quorum there is no waiting for ever
	return nil
}

// wrote takes note of a commit of this controller.
func (s *Server) wrote(revision uint64) {
	for {
		old := s.committed.Load()
		if revision <= old || s.committed.CompareAndSwap(old, revision) {
			return
		}
	}
}

func (s *Server) listObjects(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	kind := r.PathValue("kind")
	if _, ok := hub.Kinds()[kind]; kind != "" && !ok {
		return noKind(kind)
	}
	if err := s.known(r); err != nil {
		return err
	}
	objects, revision := s.o.Hub.List(kind)
	return answer(w, api.ObjectList{ClusterID: s.o.Authority.ClusterID(), Revision: revision, Objects: objects})
}

func noKind(kind string) error {
	return &statusError{http.StatusNotFound, fmt.Errorf("%q is no kind that the controllers keep", kind)}
}

func (s *Server) getObject(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	kind := r.PathValue("kind")
	if _, ok := hub.Kinds()[kind]; !ok {
		return noKind(kind)
	}
	if err := s.known(r); err != nil {
		return err
	}
	o, err := s.o.Hub.Get(kind, r.PathValue("key"))
	if err != nil {
		return err
	}
	tag := etag(o.Version)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return answer(w, o)
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// versionAsked is what If-Match and If-None-Match ask for (RFC 9110, 13.1).
func versionAsked(r *http.Request) (*uint64, error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case none == "*":
		return new(uint64), nil
	case none != "":
		return nil, badRequest("If-None-Match: only * is heeded in a write")
	case match == "" || match == "*":
		return nil, nil
	}
	version, err := strconv.ParseUint(strings.Trim(match, `"`), 10, 64)
	if err != nil {
		return nil, badRequest("If-Match: %q is no version as an ETag has it", match)
	}
	return &version, nil
}

func (s *Server) putObject(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	kind, key := r.PathValue("kind"), r.PathValue("key")
	version, err := versionAsked(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	writes, err := prepareAll([]api.ApplyObject{{Kind: kind, Object: body, Version: version}})
	if err != nil {
		return err
	}
	if made := writes[0].key; made != key && !(kind == "service" && strings.HasPrefix(made, key+"/")) {
		return badRequest("the object's own key is %q, and the path says %q", made, key)
	}
	revision, err := s.writeAll(r, who, auth.Put, writes, false)
	if err != nil {
		return err
	}
	stored := writes[0].stored(revision)
	w.Header().Set("ETag", etag(stored.Version))
	if writes[0].action() == api.ObjectCreated {
		w.WriteHeader(http.StatusCreated)
	}
	return answer(w, stored)
}

func (s *Server) deleteObject(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	version, err := versionAsked(r)
	if err != nil {
		return err
	}
	writes, err := prepareAll([]api.ApplyObject{{Kind: r.PathValue("kind"), Key: r.PathValue("key"), Delete: true, Version: version}})
	if err != nil {
		return err
	}
	if _, err := s.writeAll(r, who, auth.Delete, writes, false); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) apply(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	asked, err := read[api.Apply](r)
	if err != nil {
		return err
	}
	if len(asked.Objects) == 0 {
		return badRequest("there are no objects to apply")
	}
	writes, err := prepareAll(asked.Objects)
	if err != nil {
		return err
	}
	verb := auth.Delete
	for _, one := range writes {
		if one.object != nil {
			verb = auth.Put
		}
	}
	revision, err := s.writeAll(r, who, verb, writes, asked.DryRun)
	if err != nil {
		return err
	}
	applied := api.Applied{ClusterID: s.o.Authority.ClusterID(), Revision: revision, DryRun: asked.DryRun}
	for _, one := range writes {
		applied.Changes = append(applied.Changes, api.ObjectChange{Kind: one.kind.Name, Key: one.key, Action: one.action(), Before: one.before.Object, After: one.raw})
	}
	return answer(w, applied)
}
