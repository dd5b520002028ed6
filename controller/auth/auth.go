// Package auth is the one door: who asks, and whether they may. It also keeps
// the cluster's certificate authority, the tokens that let somebody in for the
// first time, the identities that came in, and the record of what was done. It
// serves no HTTP; the server calls it on every route.
package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// Subject is who asks.
type Subject struct {
	Kind trust.Kind
	Name string // node's, operator's or controller's
	ID   string // stays while the name may change
}

// String is kind/name, as audit records tell it.
func (s Subject) String() string {
	if s.Kind == trust.Anonymous || s.Kind == "" {
		return string(trust.Anonymous)
	}
	return string(s.Kind) + "/" + s.Name
}

// Verb is what is asked for.
type Verb string

// The verbs.
const (
	Get    Verb = "get"
	List   Verb = "list"
	Watch  Verb = "watch"
	Create Verb = "create"
	Put    Verb = "put"
	Delete Verb = "delete"
)

// The nouns that rules are about; all others are for operators alone, such as
// services/shop/web. A node's and a controller's own nouns are made by Own.
const (
	NounHealth = "health" // of this controller
	NounCA     = "ca"     // the authority's certificates
	NounJoin   = "join"   // first certificates
	NounLogin  = "login"  // an operator's first contact
)

// What Own is about.
const (
	OwnStatus      = "status"      // a node puts it
	OwnSnapshot    = "snapshot"    // a node watches it
	OwnCertificate = "certificate" // a node, an operator or a controller creates it anew
	OwnMembership  = "membership"  // a controller creates it
)

// Own is the noun for a part of one node or controller: nodes/ID/status.
func Own(kind trust.Kind, id, part string) string { return string(kind) + "s/" + id + "/" + part }

// Errors that Subject returns; each is wrapped with the reason.
var (
	ErrUnauthenticated = errors.New("not authenticated")
	ErrRevoked         = errors.New("removed from the cluster")
)

// Denied is a refusal by Allow.
type Denied struct {
	Subject Subject
	Verb    Verb
	Noun    string
	Reason  string
}

func (d *Denied) Error() string {
	return fmt.Sprintf("%s may not %s %s: %s", d.Subject, d.Verb, d.Noun, d.Reason)
}

// Options of a Door.
type Options struct {
	Store     store.Store
	Authority *Authority
	Log       *slog.Logger
	Now       func() time.Time // time.Now when nil
}

// Door knows everybody. Run keeps what it knows fresh; all methods are safe for
// concurrent use.
type Door struct {
	store     store.Store
	authority *Authority
	log       *slog.Logger
	now       func() time.Time

	mu         sync.RWMutex
	identities map[string]identity        // by key
	tokens     map[string]token           // by key
	ended      map[string][]chan struct{} // by identity's key: to close when it is revoked
}

// NewDoor makes a door. It knows nobody from memory until Run has begun, and
// asks the store meanwhile.
func NewDoor(o Options) (*Door, error) {
	if o.Store == nil || o.Authority == nil || o.Log == nil {
		return nil, errors.New("make a door: Store, Authority and Log are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Door{
		store: o.Store, authority: o.Authority, log: o.Log.With("component", "auth"), now: o.Now,
		identities: map[string]identity{}, tokens: map[string]token{}, ended: map[string][]chan struct{}{},
	}, nil
}

// Allow says whether the subject may, nil, or why not, a *Denied. What no rule
// allows is denied.
func (d *Door) Allow(s Subject, verb Verb, noun string) error {
	if open(verb, noun) {
		return nil
	}
	reason := "nobody without a certificate or a token may"
	switch s.Kind {
	case trust.Operator:
		return nil
	case trust.Node:
		if own(s, verb, noun) {
			return nil
		}
		reason = "a node may put its own status and watch its own snapshot"
	case trust.Controller:
		if verb == Get || verb == List || verb == Watch || own(s, verb, noun) {
			return nil
		}
		reason = "a controller writes for those who ask it, not by itself"
	}
	return &Denied{Subject: s, Verb: verb, Noun: noun, Reason: reason}
}

// open is what everybody may, without showing anything.
func open(verb Verb, noun string) bool {
	switch noun {
	case NounHealth, NounCA:
		return verb == Get
	case NounJoin, NounLogin:
		return verb == Create // a token is asked for there
	}
	return false
}

// own tells whether the noun is a part of the subject that it may care for.
func own(s Subject, verb Verb, noun string) bool {
	part, ok := strings.CutPrefix(noun, Own(s.Kind, s.ID, ""))
	if !ok || s.ID == "" {
		return false
	}
	switch part {
	case OwnStatus:
		return s.Kind == trust.Node && verb == Put
	case OwnSnapshot:
		return s.Kind == trust.Node && (verb == Get || verb == Watch)
	case OwnMembership:
		return s.Kind == trust.Controller && verb == Create
	case OwnCertificate:
		return verb == Create
	}
	return false
}
