package client

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// FrameKind says what a frame of ExecProtocol is.
type FrameKind byte

// The kinds of frames: a byte for the kind, four for the length, the data.
const (
	FrameStdin  FrameKind = iota // an empty one closes it
	FrameStdout                  // what the command wrote
	FrameStderr
	FrameResize // a WindowSize as JSON
	FrameExit   // an ExecEnd as JSON; the last
)

// maxFrame is how much a frame may hold, in bytes.
const maxFrame = 1 << 20

// FrameWriter writes frames, from any number of goroutines.
type FrameWriter struct {
	mu  sync.Mutex // held while a frame is written
	out io.Writer
}

// NewFrameWriter makes a FrameWriter.
func NewFrameWriter(out io.Writer) *FrameWriter { return &FrameWriter{out: out} }

// Write writes one frame.
func (w *FrameWriter) Write(kind FrameKind, data []byte) error {
	frame := make([]byte, 5, 5+len(data))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(data)))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.out.Write(append(frame, data...))
	return err
}

// ReadFrame reads one frame.
func ReadFrame(in io.Reader) (FrameKind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length > maxFrame {
		return 0, nil, fmt.Errorf("read frame: %d bytes are too many", length)
	}
	data := make([]byte, length)
	_, err := io.ReadFull(in, data)
	return FrameKind(head[0]), data, err
}
