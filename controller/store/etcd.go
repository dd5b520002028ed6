package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Bounds of one request to etcd.
const (
	requestTimeout = 5 * time.Second
	pageSize       = 1000 // keys of a List at a time
	leaseTTL       = 2    // s: the least that a leader's loss takes; etcd's own floor
)

// DefaultPrefix is where everything lies in an etcd that others use too.
const DefaultPrefix = "/weir/"

// ClientOptions say which etcd to use.
type ClientOptions struct {
	// Endpoints are URLs: http://, https:// or unix://.
	Endpoints []string
	TLS       *tls.Config // nil for http and unix
	Username  string      // empty: no login
	Password  string
	Prefix    string // DefaultPrefix when empty
	Log       *slog.Logger
}

// Etcd is a store in etcd: an embedded one, or one that people already run.
type Etcd struct {
	client *clientv3.Client
	prefix string
	log    *slog.Logger

	// Of an embedded one:
	server   *server
	quota    int64
	maintain func() // ends maintenance
}

// NewEtcd makes a store in an etcd that runs elsewhere. It connects in the
// background: a store that is away shows itself as ErrUnavailable.
func NewEtcd(o ClientOptions) (*Etcd, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("use etcd: endpoints: none is given")
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.Username, Password: o.Password,
		DialTimeout: requestTimeout, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: zapTo(o.Log),
	})
	if err != nil {
		return nil, fmt.Errorf("use etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
	}
	return &Etcd{client: client, prefix: o.Prefix, log: o.Log.With("component", "store")}, nil
}

// limited is the context of one request: it ends after requestTimeout, and with
// the client.
func (s *Etcd) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	within, cancel := context.WithTimeout(ctx, requestTimeout)
	free := context.AfterFunc(s.client.Ctx(), cancel)
	return within, func() { free(); cancel() }
}

// explain turns etcd's errors into those of this package. theirs is the
// caller's context, without the time limit of the request.
func explain(what string, theirs context.Context, err error) error {
	if err == nil {
		return nil
	}
	if theirs.Err() != nil {
		return fmt.Errorf("%s: %w", what, theirs.Err())
	}
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%s: %w", what, ErrCompacted)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s: %w: it has reached its quota", what, ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w within %s", what, ErrUnavailable, requestTimeout)
	case errors.Is(err, context.Canceled): // not by the caller: the client is closed
		return fmt.Errorf("%s: %w: it is closed", what, ErrUnavailable)
	}
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	switch code {
	case codes.Unknown, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted, codes.Aborted:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Get returns one key.
func (s *Etcd) Get(ctx context.Context, key string) (Entry, error) {
	within, cancel := s.limited(ctx)
	defer cancel()
	answer, err := s.client.Get(within, s.prefix+key)
	if err != nil {
		return Entry{}, explain("get "+key, ctx, err)
	}
	if len(answer.Kvs) == 0 {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return s.entry(answer.Kvs[0]), nil
}

// List asks the quorum, by pages, all of one revision.
func (s *Etcd) List(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	return s.list(ctx, prefix)
}

// Peek asks the member that this process is connected to.
func (s *Etcd) Peek(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	return s.list(ctx, prefix, clientv3.WithSerializable())
}

func (s *Etcd) list(ctx context.Context, prefix string, how ...clientv3.OpOption) ([]Entry, uint64, error) {
	for {
		all, revision, err := s.pages(ctx, prefix, how)
		if errors.Is(err, ErrCompacted) {
			continue // it took so long that its revision is gone: begin again
		}
		return all, revision, err
	}
}

func (s *Etcd) pages(ctx context.Context, prefix string, how []clientv3.OpOption) ([]Entry, uint64, error) {
	var all []Entry
	revision, from := int64(0), s.prefix+prefix
	end := clientv3.GetPrefixRangeEnd(s.prefix + prefix)
	for {
		within, cancel := s.limited(ctx)
		options := append([]clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)}, how...)
		answer, err := s.client.Get(within, from, options...)
		cancel()
		if err != nil {
			return nil, 0, explain("list "+prefix, ctx, err)
		}
		if revision == 0 {
			revision = answer.Header.Revision
			all = make([]Entry, 0, answer.Count)
		}
		for _, kv := range answer.Kvs {
			all = append(all, s.entry(kv))
		}
		if !answer.More {
			return all, uint64(revision), nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// Commit is one transaction.
func (s *Etcd) Commit(ctx context.Context, conditions []Condition, ops []Op) (uint64, error) {
	if err := check(conditions, ops); err != nil {
		return 0, err
	}
	compare := make([]clientv3.Cmp, len(conditions))
	for i, c := range conditions {
		compare[i] = clientv3.Compare(clientv3.ModRevision(s.prefix+c.Key), "=", int64(c.Version))
	}
	write := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		if op.Delete {
			write[i] = clientv3.OpDelete(s.prefix + op.Key)
		} else {
			write[i] = clientv3.OpPut(s.prefix+op.Key, string(op.Value))
		}
	}
	within, cancel := s.limited(ctx)
	defer cancel()
	answer, err := s.client.Txn(within).If(compare...).Then(write...).Commit()
	if err != nil {
		return 0, explain("commit "+ops[0].Key, ctx, err)
	}
	if !answer.Succeeded {
		return 0, fmt.Errorf("commit %s: %w", ops[0].Key, ErrConflict)
	}
	return uint64(answer.Header.Revision), nil
}

// Compact forgets the history before a revision.
func (s *Etcd) Compact(ctx context.Context, revision uint64) error {
	within, cancel := s.limited(ctx)
	defer cancel()
	_, err := s.client.Compact(within, int64(revision))
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil // somebody has already
	}
	return explain(fmt.Sprintf("compact to %d", revision), ctx, err)
}

// Backup writes etcd's own snapshot: etcdutl reads it too. Of an etcd that
// others use, theirs is in it as well.
func (s *Etcd) Backup(ctx context.Context, w io.Writer) error {
	reader, err := s.client.Snapshot(ctx)
	if err != nil {
		return explain("back up", ctx, err)
	}
	defer reader.Close()
	if _, err := io.Copy(w, reader); err != nil {
		return explain("back up", ctx, err)
	}
	return nil
}

// Health asks the member that this process is connected to.
func (s *Etcd) Health(ctx context.Context) (Health, error) {
	within, cancel := s.limited(ctx)
	defer cancel()
	member, err := s.client.Status(within, s.client.Endpoints()[0])
	if err != nil {
		return Health{}, explain("ask for the store's health", ctx, err)
	}
	h := Health{
		Revision: uint64(member.Header.Revision), Leader: member.Leader == member.Header.MemberId,
		Size: member.DbSize, Used: member.DbSizeInUse, Quota: s.quota,
	}
	if member.DbSizeQuota > 0 {
		h.Quota = member.DbSizeQuota
	}
	for _, text := range member.Errors {
		h.Problems = append(h.Problems, "the store reports: "+text)
	}
	if h.Quota > 0 && h.Used > h.Quota/10*8 {
		h.Problems = append(h.Problems, fmt.Sprintf("the store uses %d of the %d MiB of its quota", h.Used>>20, h.Quota>>20))
	}
	if member.IsLearner {
		h.Problems = append(h.Problems, "this member of the store catches up and has no vote yet")
	}
	begin := time.Now()
	if _, err := s.client.Get(within, s.prefix+"health"); err != nil {
		h.Problems = append(h.Problems, "the store has no quorum: nothing can be written")
	}
	h.Took = time.Since(begin)
	return h, nil
}

// Close ends the client, then an embedded server.
func (s *Etcd) Close() error {
	if s.maintain != nil {
		s.maintain()
	}
	err := s.client.Close()
	if s.server != nil {
		s.server.close()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}
