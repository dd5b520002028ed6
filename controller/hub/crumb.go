package hub

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// maxCrumbs bounds the revisions that nodes can come back from.
const maxCrumbs = 4096

// Crumb is one step on the way of states: what led from one to the next. Who
// follows holds one and waits for the next, so nobody is waited for. It holds
// no state, of which there would be thousands.
type Crumb struct {
	revision uint64
	// change leads to the revision from the one before; nil where whole.
	change  *api.SnapshotChange
	runs    map[string]*api.SnapshotChange // what nodes run, by node
	touched *touched                       // by what led here, differing or not
	whole   bool                           // no change leads here
	at      time.Time

	once  sync.Once
	frame []byte // for all nodes that run the same as before

	next  chan struct{} // closed when there is after
	after *Crumb
}

// Next is closed when there is a newer state.
func (c *Crumb) Next() <-chan struct{} { return c.next }

// After is the state after this one; nil while there is none.
func (c *Crumb) After() *Crumb {
	select {
	case <-c.next:
		return c.after
	default:
		return nil
	}
}

// Revision that the crumb leads to.
func (c *Crumb) Revision() uint64 { return c.revision }

// Frame is the line that tells a node of the change.
func (c *Crumb) Frame(node string) []byte {
	own := c.runs[node]
	self := ofNode(c.change, node)
	if own == nil && self == nil {
		c.once.Do(func() { c.frame = line(api.Frame{Type: api.FrameChange, Change: c.change}) })
		return c.frame
	}
	change := *c.change
	if own != nil {
		change.Run, change.Gone.Run = own.Run, own.Gone.Run
	}
	change.Node = self
	return line(api.Frame{Type: api.FrameChange, Change: &change})
}

// ofNode is what a change says of one node itself; nil: nothing.
func ofNode(c *api.SnapshotChange, name string) *api.Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	if slices.Contains(c.Gone.Nodes, name) {
		return &api.Node{Name: name}
	}
	return nil
}

// Whole is the line that tells a node of the whole state: packed for those that
// can take it so, which is done once for all of them.
func (s *State) Whole(node, epoch string, packed bool) []byte {
	one := s.Snapshot(node)
	frame := api.Frame{Type: api.FrameSnapshot, Epoch: epoch, Revision: one.Revision}
	if !packed {
		frame.Snapshot = one
		return line(frame)
	}
	s.pack.once.Do(func() { s.pack.bytes = pack(s.Shared) })
	frame.Packed = s.pack.bytes
	frame.Snapshot = &api.Snapshot{Revision: one.Revision, Node: one.Node, Run: one.Run}
	return line(frame)
}

func pack(s *api.Snapshot) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(s)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("hub: a state cannot be encoded: " + err.Error())
	}
	return b.Bytes()
}

func line(f api.Frame) []byte {
	b, err := json.Marshal(f)
	if err != nil {
		panic("hub: a frame cannot be encoded: " + err.Error())
	}
	return append(b, '\n')
}

// size is about what the crumb holds alone, in bytes.
func (c *Crumb) size() int {
	size := 200
	if c.change != nil {
		size += 150*(len(c.change.Backends)+len(c.change.Nodes)+len(c.change.Records)+len(c.change.VIPs)) + 400*len(c.change.Tasks)
		for i := range c.change.Services {
			size += 300 + 100*len(c.change.Services[i].Backends)
		}
	}
	for _, r := range c.runs {
		size += 1000 * len(r.Run)
	}
	return size
}

// Newest is the state of now, and the crumb to wait at for the next.
func (h *Hub) Newest() (*State, *Crumb) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == nil {
		h.state = h.content.state()
	}
	return h.state, h.newest
}
