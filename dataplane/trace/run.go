package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/weirproject/weir/bpf"
)

const (
	// readInterval is how often the ring is emptied: the programs wake nobody.
	readInterval = 50 * time.Millisecond
	// sweepInterval is how often the open flows are looked at.
	sweepInterval = time.Second
	// openFor is how long a flow has to be open to be told of before its end.
	openFor = time.Second
	// attemptFor is how long a connection may take from the call to its first
	// packet, between which nothing waits.
	attemptFor = 200 * time.Millisecond
	// quietFor is how long no datagram may pass until a flow of UDP has ended.
	quietFor = 5 * time.Second
)

// Run tells of what happens until ctx ends or the tracer is closed: of a flow at
// its end, and of one that stays open also when it is a second old. It calls tell
// from one goroutine.
func (t *Tracer) Run(ctx context.Context, tell func(Event)) error {
	ticker := time.NewTicker(readInterval)
	defer ticker.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		t.clock = newClock()
		err := t.readRing(tell)
		if err == nil && time.Since(swept) >= sweepInterval {
			swept = time.Now()
			err = t.sweep(tell)
		}
		switch {
		case errors.Is(err, ringbuf.ErrClosed), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
	}
}

func (t *Tracer) readRing(tell func(Event)) error {
	t.reader.SetDeadline(time.Now())
	var record ringbuf.Record
	for {
		err := t.reader.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the ring of events: %w", err)
		}
		t.decode(record.RawSample, tell)
	}
}

// decode tells of one record. The reader's memory is not aligned for 64-bit
// fields by promise, so the record is copied.
func (t *Tracer) decode(raw []byte, tell func(Event)) {
	if len(raw) < 4 {
		return
	}
	switch bpf.TraceTraceKind(binary.NativeEndian.Uint32(raw)) {
	case bpf.TraceTraceKindTRACE_FLOW:
		var e bpf.TraceFlowEvent
		if copyTo(&e, raw) {
			delete(t.known, e.Socket)
			tell(Event{Flow: t.clock.flow(&e.Flow)})
		}
	case bpf.TraceTraceKindTRACE_DROP:
		var e bpf.TraceDropEvent
		if copyTo(&e, raw) && t.scope.has(e.Netns) {
			tell(Event{Drop: t.drop(&e)})
		}
	}
}

func copyTo[T any](to *T, raw []byte) bool {
	size := int(unsafe.Sizeof(*to))
	if len(raw) < size {
		return false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(to)), size), raw)
	return true
}

// sweep tells of the flows that stay open, and ends those of UDP that are quiet.
func (t *Tracer) sweep(tell func(Event)) error {
	now := time.Now()
	known := map[any]bool{}
	look := func(key any, f *bpf.TraceFlow) {
		flow := t.clock.flow(f)
		if now.Sub(flow.Began) < openFor {
			return
		}
		known[key] = true
		if !t.known[key] {
			tell(Event{Flow: flow})
		}
	}
	if err := eachFlow(t.maps[bpf.TraceMapFlows], func(key uint64, f *bpf.TraceFlow) { look(key, f) }); err != nil {
		return fmt.Errorf("look at the open flows: %w", err)
	}
	var quiet []bpf.TraceDatagramFlowKey
	if err := eachFlow(t.maps[bpf.TraceMapDatagramFlows], func(key bpf.TraceDatagramFlowKey, f *bpf.TraceFlow) {
		if now.Sub(t.clock.time(f.LastNs)) < quietFor {
			look(key, f)
			return
		}
		f.EndedNs = f.LastNs
		tell(Event{Flow: t.clock.flow(f)})
		quiet = append(quiet, key)
	}); err != nil {
		return fmt.Errorf("look at the flows of UDP: %w", err)
	}
	for _, key := range quiet {
		if err := t.maps[bpf.TraceMapDatagramFlows].Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a flow of UDP: %w", err)
		}
	}
	t.known = known
	return t.sweepAttempts(tell)
}

// sweepAttempts tells of the connections that failed before a packet was sent.
func (t *Tracer) sweepAttempts(tell func(Event)) error {
	m := t.maps[bpf.TraceMapAttempts]
	var failed []uint64
	if err := eachFlow(m, func(cookie uint64, f *bpf.TraceFlow) {
		if time.Since(t.clock.time(f.BeganNs)) < attemptFor {
			return
		}
		f.EndedNs = f.BeganNs
		flow := t.clock.flow(f)
		flow.Unsent = true
		tell(Event{Flow: flow})
		failed = append(failed, cookie)
	}); err != nil {
		return fmt.Errorf("look at the connections that failed: %w", err)
	}
	for _, cookie := range failed {
		if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a connection that failed: %w", err)
		}
	}
	return nil
}

// eachFlow reads a map by buckets, so that it is whole though others write.
func eachFlow[K any](m *ebpf.Map, do func(K, *bpf.TraceFlow)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, 1024), make([]bpf.TraceFlow, 1024)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			do(keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
