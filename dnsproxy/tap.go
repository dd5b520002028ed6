package dnsproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// What is said in dnstap's messages, by the numbers of its protobuf schema.
const (
	tapQuery    = 5 // CLIENT_QUERY
	tapResponse = 6 // CLIENT_RESPONSE
	tapUDP      = 1
	tapTCP      = 2
	tapTLS      = 3
)

const (
	tapQueue   = 4096 // frames that wait for the receiver; more are lost
	tapTimeout = 5 * time.Second
	tapRetry   = time.Second
)

// tap writes what clients ask and get as dnstap, in frame streams. It never keeps
// a client waiting: what its receiver does not take is lost and counted.
type tap struct {
	to       string
	identity string
	frames   chan []byte
	lost     atomic.Uint64
	log      *slog.Logger
}

func newTap(to, identity string, log *slog.Logger) *tap {
	return &tap{to: to, identity: identity, frames: make(chan []byte, tapQueue), log: log}
}

// client notes a datagram and its answer, if there is one already.
func (t *tap) client(w *worker, query, answer []byte) {
	at := address(w.from.sender)
	t.put(tapUDP, at, w.local, tapQuery, query)
	if len(answer) > 0 {
		t.put(tapUDP, at, w.local, tapResponse, answer)
	}
}

// stream notes a connection's query, likewise.
func (t *tap) stream(c *tcpConn, query, answer []byte) {
	t.put(c.server.tapProto(), c.peer, c.local, tapQuery, query)
	if len(answer) > 0 {
		t.put(c.server.tapProto(), c.peer, c.local, tapResponse, answer)
	}
}

// put queues one message.
func (t *tap) put(proto uint64, client, server netip.AddrPort, kind uint64, message []byte) {
	if len(t.frames) == cap(t.frames) {
		t.lost.Add(1)
		return
	}
	select {
	case t.frames <- tapFrame(t.identity, proto, client, server, kind, message, time.Now()):
	default:
		t.lost.Add(1)
	}
}

// tapFrame is one message in dnstap's protobuf encoding, after its length.
func tapFrame(identity string, proto uint64, client, server netip.AddrPort, kind uint64, message []byte, now time.Time) []byte {
	family := uint64(1)
	if client.Addr().Unmap().Is6() {
		family = 2
	}
	b := make([]byte, 0, 128+len(message))
	b = varintField(b, 1, kind)
	b = varintField(b, 2, family)
	b = varintField(b, 3, proto)
	b = bytesField(b, 4, client.Addr().Unmap().AsSlice())
	b = bytesField(b, 5, server.Addr().Unmap().AsSlice())
	b = varintField(b, 6, uint64(client.Port()))
	b = varintField(b, 7, uint64(server.Port()))
	seconds, nanos, content := 8, 9, 10
	if kind == tapResponse {
		seconds, nanos, content = 12, 13, 14
	}
	b = varintField(b, seconds, uint64(now.Unix()))
	b = binary.LittleEndian.AppendUint32(binary.AppendUvarint(b, uint64(nanos)<<3|5), uint32(now.Nanosecond()))
	b = bytesField(b, content, message)

	frame := make([]byte, 4, 32+len(identity)+len(b))
	if identity != "" {
		frame = bytesField(frame, 1, []byte(identity))
	}
	frame = bytesField(frame, 2, []byte("weir"))
	frame = bytesField(frame, 14, b)
	frame = varintField(frame, 15, 1) // MESSAGE
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

func varintField(b []byte, field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(field)<<3), v)
}

func bytesField(b []byte, field int, data []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(field)<<3|2), uint64(len(data)))
	return append(b, data...)
}

// run writes until ctx ends. A receiver that goes away is looked for again.
func (t *tap) run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		err := t.write(ctx)
		if err != nil && !told {
			t.log.Warn("dnstap is not written", "to", t.to, "error", err)
		}
		told = err != nil
		select {
		case <-ctx.Done():
		case <-time.After(tapRetry):
		}
	}
	return nil
}

// Control frames of frame streams.
const (
	streamAccept = 1
	streamStart  = 2
	streamStop   = 3
	streamReady  = 4
	streamFinish = 5
	tapContent   = "protobuf:dnstap.Dnstap"
)

// controlFrame begins with a length of zero.
func controlFrame(kind uint32) []byte {
	body := binary.BigEndian.AppendUint32(nil, kind)
	if kind != streamStop && kind != streamFinish {
		body = binary.BigEndian.AppendUint32(body, 1) // content type
		body = binary.BigEndian.AppendUint32(body, uint32(len(tapContent)))
		body = append(body, tapContent...)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(len(body)))
	return append(b, body...)
}

// write writes one stream, until ctx ends or the receiver goes away.
func (t *tap) write(ctx context.Context) error {
	path, isSocket := strings.CutPrefix(t.to, "unix:")
	if !isSocket {
		// A stream begins with its own header, so an old file cannot go on.
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("open the dnstap file: %w", err)
		}
		defer file.Close()
		return t.pump(ctx, file, func() {})
	}
	conn, err := net.DialTimeout("unix", path, tapTimeout)
	if err != nil {
		return fmt.Errorf("reach dnstap's receiver: %w", err)
	}
	defer conn.Close()
	extend := func() { conn.SetDeadline(time.Now().Add(tapTimeout)) }
	extend()
	if _, err := conn.Write(controlFrame(streamReady)); err != nil {
		return fmt.Errorf("greet dnstap's receiver: %w", err)
	}
	if err := awaitControl(conn, streamAccept); err != nil {
		return err
	}
	if err := t.pump(ctx, conn, extend); err != nil {
		return err
	}
	extend()
	return awaitControl(conn, streamFinish)
}

// awaitControl reads the control frame that must come.
func awaitControl(r io.Reader, kind uint32) error {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("hear dnstap's receiver: %w", err)
	}
	size := binary.BigEndian.Uint32(head[4:])
	if binary.BigEndian.Uint32(head[:]) != 0 || binary.BigEndian.Uint32(head[8:]) != kind || size < 4 || size > 512 {
		return errors.New("hear dnstap's receiver: it speaks no frame streams")
	}
	_, err := io.CopyN(io.Discard, r, int64(size-4))
	return err
}

// pump writes the frames between start and stop.
func (t *tap) pump(ctx context.Context, to io.Writer, extend func()) error {
	w := bufio.NewWriterSize(to, 64<<10)
	w.Write(controlFrame(streamStart))
	flush := func() error {
		extend()
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write dnstap: %w", err)
		}
		return nil
	}
	for {
		if err := flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			for len(t.frames) > 0 {
				w.Write(<-t.frames)
			}
			w.Write(controlFrame(streamStop))
			return flush()
		case frame := <-t.frames:
			w.Write(frame)
		}
		for n := len(t.frames); n > 0; n-- {
			extend() // a full buffer is written meanwhile
			if _, err := w.Write(<-t.frames); err != nil {
				return fmt.Errorf("write dnstap: %w", err)
			}
		}
	}
}
