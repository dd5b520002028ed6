package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/weirproject/weir/api"
)

// The wanted state of a joined node is kept in one file: a whole snapshot in
// pieces, then the changes since, one record a line, each with its checksum. A
// change costs one short write; the whole is written anew, beside the old one,
// when the changes have become as large. A crash cuts the last record off at
// most: what is left is an older state, and the controllers send the rest.

const (
	// keptFormat is the version of the file's format.
	keptFormat = 1
	// perPiece is how many services, records or tasks are in one record.
	perPiece = 64
	// leastTail is how large the changes may always become, in bytes.
	leastTail = 1 << 20
	// maxPending changes wait for the disk; beyond them the whole is written.
	maxPending = 1000
)

// keptRecord is one line of the file; one of the fields is set.
type keptRecord struct {
	Begin *keptBegin          `json:"begin,omitempty"`
	Piece *api.Snapshot       `json:"piece,omitempty"`
	End   *keptEnd            `json:"end,omitempty"` // of the whole
	Next  *api.SnapshotChange `json:"next,omitempty"`
}

// keptBegin says what the file is about.
type keptBegin struct {
	Format   int    `json:"format"`
	Cluster  string `json:"cluster"`
	NodeID   string `json:"node_id"`
	Epoch    string `json:"epoch"`
	Revision uint64 `json:"revision"`
}

type keptEnd struct {
	Pieces int `json:"pieces"`
}

// keeper writes the wanted state down, behind what is applied.
type keeper struct {
	path    string
	cluster string
	nodeID  string
	log     *slog.Logger
	wake    chan struct{}

	mu      sync.Mutex // guards what follows
	latest  *api.Snapshot
	epoch   string
	whole   bool // latest is to be written as a whole
	pending []*api.SnapshotChange

	// What follows is run's alone.
	file       *os.File
	base, tail int64 // bytes
}

func newKeeper(path, cluster, nodeID string, log *slog.Logger) *keeper {
	return &keeper{path: path, cluster: cluster, nodeID: nodeID, log: log, wake: make(chan struct{}, 1)}
}

// put notes the newest state and, unless it is to be written whole, what made
// it of the one before.
func (k *keeper) put(epoch string, s *api.Snapshot, change *api.SnapshotChange) {
	k.mu.Lock()
	k.latest, k.epoch = s, epoch
	if change == nil || len(k.pending) == maxPending {
		k.whole = true
	}
	if k.whole {
		k.pending = nil
	} else {
		k.pending = append(k.pending, change)
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is still to be written.
func (k *keeper) run(ctx context.Context) error {
	failing := false
	for {
		err := k.write()
		if err != nil && !failing {
			k.log.Error("wanted state not kept on disk", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			err := k.write()
			if k.file != nil {
				err = errors.Join(err, k.file.Close())
			}
			if err != nil {
				k.log.Warn("wanted state not kept on disk", "error", err)
			}
			return nil
		case <-k.wake:
		}
	}
}

func (k *keeper) write() error {
	k.mu.Lock()
	s, epoch, whole, pending := k.latest, k.epoch, k.whole, k.pending
	k.whole, k.pending = false, nil
	k.mu.Unlock()
	if s == nil {
		return nil
	}
	err := k.append(pending)
	if err != nil || whole || len(pending) > 0 && (k.file == nil || k.tail > max(leastTail, k.base)) {
		err = k.rewrite(epoch, s)
	}
	if err != nil {
		k.mu.Lock()
		k.whole, k.pending = true, nil
		k.mu.Unlock()
	}
	return err
}

// append adds changes to the file that is open.
func (k *keeper) append(changes []*api.SnapshotChange) error {
	if k.file == nil || len(changes) == 0 {
		return nil
	}
	var b bytes.Buffer
	for _, c := range changes {
		if err := writeRecord(&b, keptRecord{Next: c}); err != nil {
			return err
		}
	}
	n, err := k.file.Write(b.Bytes())
	k.tail += int64(n)
	return err
}

// rewrite puts a file with the whole in the place of the old one.
func (k *keeper) rewrite(epoch string, s *api.Snapshot) error {
	f, err := os.CreateTemp(filepath.Dir(k.path), "."+filepath.Base(k.path)+"-*")
	if err != nil {
		return err
	}
	begin := keptBegin{Format: keptFormat, Cluster: k.cluster, NodeID: k.nodeID, Epoch: epoch, Revision: s.Revision}
	buffered := bufio.NewWriterSize(f, 1<<16)
	err = writeWhole(buffered, begin, s)
	err = errors.Join(err, buffered.Flush())
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", k.path, err)
	}
	if k.file != nil {
		k.file.Close()
	}
	size, err := f.Seek(0, 2)
	k.file, k.base, k.tail = f, size, 0
	return err
}

func writeWhole(w *bufio.Writer, begin keptBegin, s *api.Snapshot) error {
	if err := writeRecord(w, keptRecord{Begin: &begin}); err != nil {
		return err
	}
	n := 0
	for piece := range pieces(s) {
		if err := writeRecord(w, keptRecord{Piece: piece}); err != nil {
			return err
		}
		n++
	}
	return writeRecord(w, keptRecord{End: &keptEnd{Pieces: n}})
}

// pieces takes a snapshot apart: the first has all but the long lists.
func pieces(s *api.Snapshot) func(yield func(*api.Snapshot) bool) {
	return func(yield func(*api.Snapshot) bool) {
		first := *s
		first.Services, first.Records, first.Tasks, first.Run = nil, nil, nil, nil
		more := yield(&first)
		for from := 0; more && from < max(len(s.Services), len(s.Records), len(s.Tasks), len(s.Run)); from += perPiece {
			more = yield(&api.Snapshot{
				Services: piece(s.Services, from), Records: piece(s.Records, from), Tasks: piece(s.Tasks, from), Run: piece(s.Run, from),
			})
		}
	}
}

func piece[T any](all []T, from int) []T {
	return all[min(from, len(all)):min(from+perPiece, len(all))]
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeRecord writes checksum, space, JSON, newline.
func writeRecord(w interface{ Write([]byte) (int, error) }, r keptRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	line := fmt.Appendf(make([]byte, 0, len(data)+10), "%08x ", crc32.Checksum(data, castagnoli))
	_, err = w.Write(append(append(line, data...), '\n'))
	return err
}

func readRecord(line []byte) (keptRecord, error) {
	var r keptRecord
	if len(line) < 10 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return r, errors.New("a record is cut short")
	}
	data := line[9 : len(line)-1]
	if sum, err := strconv.ParseUint(string(line[:8]), 16, 32); err != nil || uint32(sum) != crc32.Checksum(data, castagnoli) {
		return r, errors.New("a record's checksum does not match")
	}
	return r, json.Unmarshal(data, &r)
}

// load reads the state back, and the epoch that it is of; nil when there is no
// file. The error says what was discarded: all, with a nil snapshot, or the
// changes after those that are whole.
func (k *keeper) load() (s *api.Snapshot, epoch string, err error) {
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, 1<<16)
	s, epoch, err = k.loadWhole(lines)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: damaged: %w", k.path, err)
	}
	for {
		line, _ := lines.ReadBytes('\n') // a line that is cut off is damaged
		if len(line) == 0 {
			return s, epoch, nil
		}
		var r keptRecord
		if r, err = readRecord(line); err == nil && r.Next == nil {
			err = errors.New("a record is out of place")
		}
		var next *api.Snapshot
		if err == nil {
			next, err = s.Apply(r.Next)
		}
		if err != nil {
			return s, epoch, fmt.Errorf("read %s: damaged after revision %d: %w", k.path, s.Revision, err)
		}
		s = next
	}
}

func (k *keeper) loadWhole(lines *bufio.Reader) (*api.Snapshot, string, error) {
	var begin keptBegin
	s := &api.Snapshot{}
	for n := -1; ; n++ {
		line, _ := lines.ReadBytes('\n')
		r, err := readRecord(line)
		switch {
		case err != nil:
			return nil, "", err
		case n == -1 && (r.Begin == nil || r.Begin.Format != keptFormat):
			return nil, "", errors.New("it is of another format")
		case n == -1:
			begin = *r.Begin
		case r.End != nil && r.End.Pieces == n:
			if begin.Cluster != k.cluster || begin.NodeID != k.nodeID {
				return nil, "", errors.New("it is of another cluster or node")
			}
			return s, begin.Epoch, nil
		case r.Piece == nil:
			return nil, "", errors.New("a piece is missing")
		case n == 0:
			s = r.Piece
			s.Revision = begin.Revision
		default:
			s.Services, s.Records = append(s.Services, r.Piece.Services...), append(s.Records, r.Piece.Records...)
			s.Tasks, s.Run = append(s.Tasks, r.Piece.Tasks...), append(s.Run, r.Piece.Run...)
		}
	}
}
