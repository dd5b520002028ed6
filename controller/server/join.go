package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/store"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request, _ auth.Subject) error {
	_, err := fmt.Fprintln(w, "ok")
	return err
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request, _ auth.Subject) error {
	select {
	case <-s.o.Hub.Ready():
		_, err := fmt.Fprintln(w, "ok")
		return err
	default:
		return fmt.Errorf("%w: this controller does not know the state yet", store.ErrUnavailable)
	}
}

func (s *Server) serveCA(w http.ResponseWriter, _ *http.Request, _ auth.Subject) error {
	return answer(w, api.Authorities{ClusterID: s.o.Authority.ClusterID(), CA: string(s.o.Authority.Bundle())})
}

func (s *Server) showCluster(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	if err := s.known(r); err != nil {
		return err
	}
	return answer(w, api.Cluster{
		ID: s.o.Authority.ClusterID(), Epoch: s.o.Hub.Epoch(), Revision: s.o.Hub.Revision(),
		Controller: s.o.Name, Leader: s.leader(r.Context()), Version: s.o.Version,
	})
}

// joinPause is the longest wait before a join is tried again.
const joinPause = 100 * time.Millisecond

// join lets somebody in by a token.
func (s *Server) join(role auth.Role) func(http.ResponseWriter, *http.Request, auth.Subject) error {
	return func(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
		asked, err := read[api.Join](r)
		if err != nil {
			return err
		}
		joined, who, err := s.o.Door.Join(r.Context(), role, asked)
		for range attempts {
			if !errors.Is(err, store.ErrConflict) {
				break
			}
			// Many come at once by one token, whose uses are counted.
			select {
			case <-r.Context().Done():
			case <-time.After(rand.N(joinPause)):
			}
			joined, who, err = s.o.Door.Join(r.Context(), role, asked)
		}
		if err != nil {
			return asked422(err)
		}
		if err := s.o.Audit.Write(r.Context(), s.record(r, who, auth.Create, auth.NounJoin, nil)); err != nil {
			s.log.Warn("a join is not in the audit", "subject", who, "error", err)
		}
		s.log.Info("joined", "subject", who, "address", clientName(r))
		return answer(w, joined)
	}
}

// asked422 is of what the door finds wrong in a request, without a status of its
// own.
func asked422(err error) error {
	if statusOf(err) == http.StatusInternalServerError {
		return &statusError{http.StatusUnprocessableEntity, err}
	}
	return err
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request, who auth.Subject) error {
	asked, err := read[api.Join](r)
	if err != nil {
		return err
	}
	joined, err := s.o.Door.Renew(r.Context(), who, asked)
	if err != nil {
		return asked422(err)
	}
	return answer(w, joined)
}

func (s *Server) login(w http.ResponseWriter, r *http.Request, _ auth.Subject) error {
	asked, err := read[api.LoginRequest](r)
	if err != nil {
		return err
	}
	login, err := s.o.Door.Login(r.Context(), asked.Token)
	if err != nil {
		return err
	}
	if who, err := s.o.Door.Subject(bearing(r, login.Token)); err == nil {
		if err := s.o.Audit.Write(r.Context(), s.record(r, who, auth.Create, auth.NounLogin, nil)); err != nil {
			s.log.Warn("a login is not in the audit", "subject", who, "error", err)
		}
	}
	return answer(w, login)
}

// bearing is the request as who has just logged in would send it.
func bearing(r *http.Request, token string) *http.Request {
	r = r.Clone(r.Context())
	r.TLS = nil
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}
