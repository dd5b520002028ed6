// Package store is the only door to what the controllers keep: an ordered set
// of keys with revisions, held by etcd (embedded, or one that people already
// run) or in memory. It knows nothing of what the values mean.
package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that callers branch on.
var (
	// ErrNotFound is of a key that is not there.
	ErrNotFound = errors.New("not found")
	// ErrConflict is of a commit whose conditions did not hold.
	ErrConflict = errors.New("changed by somebody else meanwhile")
	// ErrCompacted is of a watch from a revision that is no longer kept.
	ErrCompacted = errors.New("the revision is no longer kept")
	// ErrUnavailable is of a store that has no quorum, or no space. A commit that
	// ended so may have been done all the same.
	ErrUnavailable = errors.New("the store does not answer")
)

// Entry is a key with its value.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64 // revision of its last write
	Created uint64 // revision of its first
}

// Condition must hold for a commit: the key is at the version, or is not there
// for version 0.
type Condition struct {
	Key     string
	Version uint64
}

// Op writes or deletes one key.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
}

// Event is one change of a key.
type Event struct {
	Entry   // without Value when Deleted
	Deleted bool
}

// Batch are all the changes of one revision, or the end of a watch.
type Batch struct {
	Revision uint64
	Events   []Event
	// Err ends the watch: ErrCompacted asks for a new List.
	Err error
}

// Limits of one commit.
const (
	MaxOps   = 128     // and as many conditions
	MaxValue = 1 << 20 // bytes of all its keys and values
)

// LeadPrefix is where Lead keeps its keys: name, slash, and one per candidate.
// Nobody else writes below it. A watch sees leaders come and go there.
const LeadPrefix = "lead/"

// Store keeps keys. All calls are safe for concurrent use and end with ctx.
// What needs the quorum ends after 5 s with ErrUnavailable.
type Store interface {
	// Get returns one key, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// List returns what lies below a prefix, sorted by key, and the revision at
	// which it was so.
	List(ctx context.Context, prefix string) ([]Entry, uint64, error)
	// Peek lists from this process's own copy, without the quorum: it may be
	// behind, and answers while nothing else does.
	Peek(ctx context.Context, prefix string) ([]Entry, uint64, error)
	// Commit writes all ops at one revision if every condition holds, or none:
	// ErrConflict. No key may be twice among the ops. It returns the revision; to
	// delete what is not there makes none.
	Commit(ctx context.Context, conditions []Condition, ops []Op) (uint64, error)
	// Watch sends every change below a prefix after the revision, in order and
	// once, until ctx ends or a Batch with Err; then it closes the channel. A
	// receiver that is slow gets several revisions' batches one after the other.
	// Without quorum it waits and goes on where it was.
	Watch(ctx context.Context, prefix string, after uint64) <-chan Batch
	// Lead blocks until this process is the only leader of the name, also while
	// the store is away, then runs do with a context that ends when it no longer
	// is; it returns what do returns, or ctx's error. Others see the leader's id
	// by Leader. A commit of do must have the leadership among its conditions:
	// Fence gives it.
	Lead(ctx context.Context, name, id string, do func(context.Context, Leadership) error) error
	// Leader is the id of the present leader; ErrNotFound when there is none.
	Leader(ctx context.Context, name string) (string, error)
	// Backup writes a snapshot of everything, as Restore reads it; of a store in
	// memory there is none: errors.ErrUnsupported.
	Backup(ctx context.Context, w io.Writer) error
	// Compact forgets the history before a revision.
	Compact(ctx context.Context, revision uint64) error
	// Health tells of this process's part of the store.
	Health(ctx context.Context) (Health, error)
	// Close ends it; of an embedded one the server too.
	Close() error
}

// Leadership is held while a leader leads.
type Leadership interface {
	// Fence holds as long as the leadership does.
	Fence() Condition
}

// Health is the state of a process's part of a store.
type Health struct {
	Revision uint64
	Leader   bool          // of the store's own consensus
	Size     int64         // bytes on disk
	Used     int64         // bytes of them that are in use
	Quota    int64         // bytes; beyond them it takes no writes; 0 when unknown
	Took     time.Duration // of a linearizable read
	// Problems in words, such as a missing quorum; empty when all is well.
	Problems []string
}

// Member is a process that holds a copy of an embedded store.
type Member struct {
	ID      uint64
	Name    string   // empty until it has started
	Peers   []string // URLs for the other members
	Learner bool     // catches up and has no vote yet
	Leader  bool
}

// Members is the membership of an embedded store.
type Members interface {
	// Members lists them, sorted by name.
	Members(ctx context.Context) ([]Member, error)
	// AddMember makes room for a learner at a peer URL, or finds the room made
	// before; it returns what the new process must be started with. It refuses
	// with ErrQuorum while members are away.
	AddMember(ctx context.Context, name, peer string) (cluster string, err error)
	// Promote gives every learner that has caught up its vote.
	Promote(ctx context.Context) error
	// RemoveMember takes one out, or refuses with ErrQuorum where too few would
	// be left that answer.
	RemoveMember(ctx context.Context, id uint64) error
}

// ErrQuorum is of a change of members that could cost the quorum.
var ErrQuorum = errors.New("the members that answer would be too few for a quorum")
