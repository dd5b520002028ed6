package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// revisionGap is how far a restored store goes ahead in revisions: what was
// written after the backup and is lost had revisions too, and no new one may
// look like one of those to whoever remembers it.
const revisionGap = 1_000_000_000

// RestoreOptions of an embedded store.
type RestoreOptions struct {
	Dir  string // of the store to be; must not hold one
	Name string // of its only member
	Peer string // where others will reach it
	// Adapt changes what it must in the restored store; with its error nothing is
	// restored.
	Adapt  func(context.Context, *Etcd) error
	Prefix string
	Log    *slog.Logger
}

// Restore makes an embedded store of one member out of a backup; StartEtcd goes
// on with it. All keys are as they were, with their versions; every watch from a
// revision before gets ErrCompacted.
func Restore(ctx context.Context, backup io.Reader, o RestoreOptions) error {
	if Exists(o.Dir) {
		return fmt.Errorf("restore to %s: there is a store already; move it away first", o.Dir)
	}
	err := o.unpack(backup)
	if err == nil {
		err = o.begin(ctx)
	}
	if err != nil {
		_ = os.RemoveAll(filepath.Join(o.Dir, "member")) // so that it can be tried again
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// unpack makes the database.
func (o *RestoreOptions) unpack(backup io.Reader) error {
	folder := filepath.Join(o.Dir, "member", "snap")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	path := filepath.Join(folder, "db")
	if err := copyBackup(backup, path); err != nil {
		return err
	}
	return makeAlone(path)
}

// begin runs the restored store once. Its log must not begin with nothing: a
// member that joins would get the log's entries and miss what was in the
// database before them. So it is run until it has a snapshot to begin with.
// Nobody else reaches it meanwhile.
func (o *RestoreOptions) begin(ctx context.Context) (err error) {
	hidden, err := os.MkdirTemp("", "weir-restore-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(hidden)
	s, err := StartEtcd(ctx, EmbedOptions{
		Dir: o.Dir, Name: o.Name, Peer: "unix://" + filepath.Join(hidden, "peer"), snapshotEvery: 1, Prefix: o.Prefix, Log: o.Log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.Adapt != nil {
		if err := o.Adapt(ctx, s); err != nil {
			return err
		}
	}
	if err := s.SetPeer(ctx, o.Name, o.Peer); err != nil {
		return err
	}
	for {
		if made, _ := filepath.Glob(filepath.Join(o.Dir, "member", "snap", "*.snap")); len(made) > 0 {
			return nil
		}
		for _, op := range []Op{{Key: "restored"}, {Key: "restored", Delete: true}} {
			if _, err := s.Commit(ctx, nil, []Op{op}); err != nil {
				return err
			}
		}
		if err := s.pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// copyBackup writes the database of a backup, whose last bytes are its sum.
func copyBackup(backup io.Reader, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := io.Copy(f, backup)
	if err != nil {
		return err
	}
	// A database is of whole pages of at least 512 bytes.
	if size < sha256.Size || (size-sha256.Size)%512 != 0 {
		return errors.New("the backup is cut off, or is none")
	}
	size -= sha256.Size
	want := make([]byte, sha256.Size)
	if _, err := f.ReadAt(want, size); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errors.New("the backup is damaged: its sum is another")
	}
	return errors.Join(f.Truncate(size), f.Sync())
}

// makeAlone takes out of a database what belongs to its old cluster's consensus
// and keeps the keys, and leases until they end by themselves. A server that finds no log beside such a database begins
// a log of its own.
func makeAlone(path string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return fmt.Errorf("open the backup: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"members", "members_removed", "cluster", "alarm"} {
			if tx.Bucket([]byte(name)) == nil {
				continue
			}
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		keys, meta := tx.Bucket([]byte("key")), tx.Bucket([]byte("meta"))
		if keys == nil || meta == nil {
			return errors.New("the backup is of no store")
		}
		for _, name := range []string{"consistent_index", "term", "confState"} {
			if err := meta.Delete([]byte(name)); err != nil {
				return err
			}
		}
		last, _ := keys.Cursor().Last()
		if len(last) < 8 {
			return errors.New("the backup is empty")
		}
		// A compaction that was begun is ended at the start, and the store goes on
		// from its revision: so all history is forgotten and the gap is made.
		revision := make([]byte, 17)
		binary.BigEndian.PutUint64(revision, binary.BigEndian.Uint64(last)+revisionGap)
		revision[8] = '_'
		return meta.Put([]byte("scheduledCompactRev"), revision)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("take the old members out of the backup: %w", err)
	}
	return nil
}
