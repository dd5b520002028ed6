package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
)

// did writes the record of a write that is done already.
func (s *Server) did(r *http.Request, who auth.Subject, verb auth.Verb, noun string) {
	if err := s.o.Audit.Write(r.Context(), s.record(r, who, verb, noun, nil)); err != nil {
		s.log.Warn("a write is not in the audit", "subject", who, "verb", verb, "noun", noun, "error", err)
	}
}

func (s *Server) listTokens(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	tokens, err := s.o.Door.Tokens(r.Context())
	if err != nil {
		return err
	}
	if tokens == nil {
		tokens = []api.Token{}
	}
	return answer(w, tokens)
}

func (s *Server) createToken(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	asked, err := read[api.TokenRequest](r)
	if err != nil {
		return err
	}
	token, err := s.o.Door.CreateToken(r.Context(), auth.TokenRequest{
		Role: auth.Role(asked.Role), TTL: asked.TTL.Std(), Uses: asked.Uses, Node: asked.Node,
	})
	if err != nil {
		return asked422(err)
	}
	s.did(r, who, auth.Create, "tokens/"+token.ID)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	return answer(w, token)
}

func (s *Server) deleteToken(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	id := r.PathValue("id")
	if err := s.o.Door.DeleteToken(r.Context(), id); err != nil {
		return err
	}
	s.did(r, who, auth.Delete, "tokens/"+id)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

var errAlone = errors.New("this controller is one alone, with all in memory")

func (s *Server) listControllers(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	all := []api.Controller{}
	if s.o.Members != nil {
		list, err := s.o.Members.List(r.Context())
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	return answer(w, all)
}

// leader is the name of the controller that leads; empty when it is not known.
func (s *Server) leader(ctx context.Context) string {
	if s.o.Members == nil {
		return s.o.Name
	}
	all, err := s.o.Members.List(ctx)
	if err != nil {
		return ""
	}
	for _, c := range all {
		if c.Leader {
			return c.Name
		}
	}
	return ""
}

func (s *Server) admitController(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	asked, err := read[api.ControllerJoin](r)
	if err != nil {
		return err
	}
	if s.o.Members == nil {
		return &statusError{http.StatusConflict, errAlone}
	}
	joined, err := s.o.Members.Admit(r.Context(), who, asked)
	if err != nil {
		return asked422(err)
	}
	s.did(r, who, auth.Create, "controllers/"+asked.Name)
	return answer(w, joined)
}

func (s *Server) removeController(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	if s.o.Members == nil {
		return &statusError{http.StatusConflict, errAlone}
	}
	name := r.PathValue("name")
	// The record comes first: a controller that removes itself writes no more.
	if err := s.o.Audit.Write(r.Context(), s.record(r, who, auth.Delete, "controllers/"+name, nil)); err != nil {
		return err
	}
	if err := s.o.Members.Remove(r.Context(), name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// backup sends a snapshot of the store. What goes wrong on the way cuts the
// answer off, so that nobody takes a part for the whole.
func (s *Server) backup(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	out := &firstByte{ResponseWriter: w}
	if err := s.o.Store.Backup(r.Context(), out); err != nil {
		if out.begun {
			s.log.Warn("a backup was cut off", "subject", who, "error", err)
			panic(http.ErrAbortHandler)
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return &statusError{http.StatusConflict, errAlone}
		}
		return err
	}
	s.did(r, who, auth.Get, "backup")
	return nil
}

// firstByte knows whether an answer has begun.
type firstByte struct {
	http.ResponseWriter
	begun bool
}

func (f *firstByte) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.Header().Set("Content-Type", "application/octet-stream")
	}
	return f.ResponseWriter.Write(p)
}

// Records of an audit that are shown.
const (
	usualRecords = 100
	mostRecords  = auth.AuditKept
)

func (s *Server) listAudit(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	limit := usualRecords
	if text := r.FormValue("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostRecords {
			return badRequest("limit: %q is not a number of 1 to %d", text, mostRecords)
		}
		limit = n
	}
	records, err := s.o.Audit.List(r.Context(), limit)
	if err != nil {
		return err
	}
	if records == nil {
		records = []api.AuditRecord{}
	}
	return answer(w, records)
}
