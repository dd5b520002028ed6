package auth

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/store"
)

// Role is what a token lets somebody in as.
type Role string

// The roles.
const (
	RoleAgent      Role = "agent"
	RoleController Role = "controller"
	RoleOperator   Role = "operator"
)

// kind is what somebody is after coming in.
func (r Role) kind() trust.Kind {
	switch r {
	case RoleAgent:
		return trust.Node
	case RoleController:
		return trust.Controller
	default:
		return trust.Operator
	}
}

// Longest lives of tokens.
const (
	maxAgentTTL    = 365 * 24 * time.Hour
	maxOperatorTTL = 30 * 24 * time.Hour
	maxJoinTTL     = 24 * time.Hour // controllers
	sessionTTL     = 12 * time.Hour // after a login
)

// TokenRequest asks for a token.
type TokenRequest struct {
	Role Role
	TTL  time.Duration // 0: 1 h for agents and operators, 15 min for controllers
	// Uses is how often it lets somebody in; 0 means without a limit. A token for
	// controllers is for one.
	Uses int
	Node string // the only node that it lets in; empty: any
}

// token as it is kept. The secret is not.
type token struct {
	Role    Role      `json:"role"`
	Hash    string    `json:"hash"`
	Uses    int       `json:"uses,omitempty"` // 0 without a limit
	Used    int       `json:"used,omitempty"`
	Expires time.Time `json:"expires"`
	Created time.Time `json:"created"`
	Node    string    `json:"node,omitempty"`
	Of      string    `json:"of,omitempty"` // of a login: the token that it was made with

	version uint64
}

// name is how audit records call who uses it.
func (t token) name(id string) string {
	if t.Of != "" {
		return "token-" + t.Of
	}
	return "token-" + id
}

func (r *TokenRequest) check() error {
	longest, usual := maxAgentTTL, time.Hour
	switch r.Role {
	case RoleAgent:
	case RoleOperator:
		longest = maxOperatorTTL
	case RoleController:
		longest, usual = maxJoinTTL, 15*time.Minute
		if r.Uses > 1 {
			return fmt.Errorf("uses: %d: a controller's token is for one", r.Uses)
		}
		r.Uses = 1
	default:
		return fmt.Errorf("role: %q is none of agent, controller, operator", r.Role)
	}
	if r.TTL == 0 {
		r.TTL = usual
	}
	switch {
	case r.TTL < 0 || r.TTL > longest:
		return fmt.Errorf("ttl: %s is not between 0 and %s", r.TTL, longest)
	case r.Uses < 0 || r.Uses > 1_000_000:
		return fmt.Errorf("uses: %d is not between 0 and 1,000,000", r.Uses)
	case r.Node != "" && r.Role != RoleAgent:
		return fmt.Errorf("node: a token for %s is for no node", r.Role)
	}
	return nil
}

// CreateToken makes a token; the answer alone holds the secret.
func (d *Door) CreateToken(ctx context.Context, r TokenRequest) (api.Token, error) {
	if err := r.check(); err != nil {
		return api.Token{}, err
	}
	return d.keepToken(ctx, token{Role: r.Role, Uses: r.Uses, Node: r.Node, Expires: d.now().Add(r.TTL)}, nil)
}

// keepToken writes a new token, with what else belongs to the same commit.
func (d *Door) keepToken(ctx context.Context, kept token, spent *spending) (api.Token, error) {
	made := trust.NewToken(func(b []byte) { _, _ = rand.Read(b) }, d.authority.Pin()) // never fails
	kept.Hash, kept.Created = made.Hash(), d.now()
	value, err := json.Marshal(kept)
	if err != nil {
		return api.Token{}, err
	}
	conditions := []store.Condition{{Key: tokenPrefix + made.ID}}
	ops := []store.Op{{Key: tokenPrefix + made.ID, Value: value}}
	if spent != nil {
		conditions, ops = append(conditions, spent.condition), append(ops, spent.op)
	}
	if _, err := d.store.Commit(ctx, conditions, ops); err != nil {
		return api.Token{}, fmt.Errorf("keep the token: %w", err)
	}
	told := kept.tell(made.ID)
	told.Secret = made.String()
	return told, nil
}

func (t token) tell(id string) api.Token {
	left := 0
	if t.Uses > 0 {
		left = t.Uses - t.Used
	}
	return api.Token{ID: id, Role: string(t.Role), Uses: left, Expires: t.Expires, Node: t.Node, Created: t.Created}
}

// Tokens lists those that still let somebody in, the oldest first.
func (d *Door) Tokens(ctx context.Context) ([]api.Token, error) {
	entries, _, err := d.store.List(ctx, tokenPrefix)
	if err != nil {
		return nil, err
	}
	var all []api.Token
	for _, e := range entries {
		kept, err := decode[token](e)
		if err != nil {
			return nil, err
		}
		if kept.Expires.After(d.now()) && (kept.Uses == 0 || kept.Used < kept.Uses) {
			all = append(all, kept.tell(strings.TrimPrefix(e.Key, tokenPrefix)))
		}
	}
	slices.SortFunc(all, func(a, b api.Token) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// DeleteToken takes a token back, by its id; store.ErrNotFound when there is none.
func (d *Door) DeleteToken(ctx context.Context, id string) error {
	e, err := d.store.Get(ctx, tokenPrefix+id)
	if err != nil {
		return fmt.Errorf("delete the token %s: %w", id, err)
	}
	_, err = d.store.Commit(ctx, []store.Condition{{Key: e.Key, Version: e.Version}}, []store.Op{{Key: e.Key, Delete: true}})
	return err
}

// token asks memory, then the store.
func (d *Door) token(ctx context.Context, id string) (token, error) {
	d.mu.RLock()
	kept, ok := d.tokens[tokenPrefix+id]
	d.mu.RUnlock()
	if ok {
		return kept, nil
	}
	return load[token](ctx, d.store, tokenPrefix+id)
}

// spending is one use of a token, to be committed with what it is used for: the
// condition makes sure that of two who use it at the same time one fails.
type spending struct {
	condition store.Condition
	op        store.Op
}

func (t token) spend(id string) (*spending, error) {
	key, version := tokenPrefix+id, t.version
	t.Used++
	value, err := json.Marshal(t)
	return &spending{store.Condition{Key: key, Version: version}, store.Op{Key: key, Value: value}}, err
}
