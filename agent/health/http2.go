package health

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/net/http2/hpack"
)

// What a check needs of HTTP/2 (RFC 9113) is one request, small enough for any
// window, on a connection that is reset after the answer. The standard library's
// client does the same for several times the processor time.

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame types (RFC 9113 section 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePush         = 5
	framePing         = 6
	frameGoAway       = 7
	frameContinuation = 9
)

// Flags of frames.
const (
	flagAck        = 0x1 // of settings and pings
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	// maxFrame is what an endpoint may send unasked, in bytes.
	maxFrame = 16 << 10
	// headerTable is the compression table of a connection unless told
	// otherwise, in bytes.
	headerTable = 4096
	// stream is the id of the only request.
	stream = 1
)

func appendFrame(b []byte, kind, flags byte, id uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, payload...)
}

// http2Request is the connection's opening and a whole request with a body, each
// of which must fit a frame.
func http2Request(fields []hpack.HeaderField, body []byte) []byte {
	var block headerBlock
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = encoder.WriteField(f) // a headerBlock takes all
	}
	noPush := []byte{0, 2, 0, 0, 0, 0} // SETTINGS_ENABLE_PUSH = 0
	b := appendFrame([]byte(http2Preface), frameSettings, 0, 0, noPush)
	b = appendFrame(b, frameHeaders, flagEndHeaders, stream, block)
	return appendFrame(b, frameData, flagEndStream, stream, body)
}

type headerBlock []byte

func (h *headerBlock) Write(b []byte) (int, error) {
	*h = append(*h, b...)
	return len(b), nil
}

// http2Answer is an answer, its header and trailer in one: a name given in both
// has the trailer's value.
type http2Answer struct {
	fields map[string]string
	body   []byte
}

// answerReader reads one http2Answer.
type answerReader struct {
	in      *bufio.Reader
	out     io.Writer
	decoder *hpack.Decoder
	frame   []byte // of the last frame, reused
	answer  http2Answer
}

var (
	errNoHTTP2  = errors.New("the server does not speak HTTP/2")
	errTooLong  = errors.New("the answer is too long")
	errProtocol = errors.New("the server breaks the HTTP/2 protocol")
)

func newAnswerReader(in *bufio.Reader, out io.Writer) *answerReader {
	return &answerReader{in: in, out: out, decoder: hpack.NewDecoder(headerTable, nil), answer: http2Answer{fields: map[string]string{}}}
}

// read reads until the answer ends.
func (r *answerReader) read() (http2Answer, error) {
	for first := true; ; first = false {
		kind, flags, id, payload, err := r.next()
		switch {
		case err == nil && first && kind != frameSettings:
			err = errNoHTTP2
		case err == nil:
			err = r.take(kind, flags, id, payload)
		case first && errors.Is(err, errTooLong):
			err = errNoHTTP2 // text looks like a frame of megabytes
		}
		if err != nil {
			return http2Answer{}, err
		}
		if (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0 {
			return r.answer, nil
		}
	}
}

// next reads one frame; the payload is valid until the next call.
func (r *answerReader) next() (kind, flags byte, id uint32, payload []byte, err error) {
	var header [9]byte
	if _, err := io.ReadFull(r.in, header[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	length := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
	if length > maxFrame {
		return 0, 0, 0, nil, errTooLong
	}
	r.frame = slices.Grow(r.frame[:0], length)
	payload = r.frame[:length]
	_, err = io.ReadFull(r.in, payload)
	return header[3], header[4], binary.BigEndian.Uint32(header[5:]) &^ (1 << 31), payload, err
}

// take deals with one frame.
func (r *answerReader) take(kind, flags byte, id uint32, payload []byte) error {
	switch kind {
	case frameData:
		data, err := unpad(flags, payload, 0)
		if err != nil || id != stream {
			return errProtocol
		}
		if r.answer.body = append(r.answer.body, data...); len(r.answer.body) > maxGRPCAnswer {
			return errTooLong
		}
	case frameHeaders:
		return r.headers(flags, id, payload)
	case frameSettings, framePing:
		if flags&flagAck != 0 {
			return nil
		}
		if kind == frameSettings {
			payload = nil
		}
		_, err := r.out.Write(appendFrame(nil, kind, flagAck, 0, payload))
		return err
	case frameReset:
		return fmt.Errorf("the server reset the request (HTTP/2 error %d)", errorCode(payload, 0))
	case frameGoAway:
		// One that is closing down gracefully still answers what it names.
		if len(payload) >= 8 && binary.BigEndian.Uint32(payload)&^(1<<31) < stream {
			return fmt.Errorf("the server is going away (HTTP/2 error %d)", errorCode(payload, 4))
		}
	case framePush, frameContinuation:
		return errProtocol
	}
	return nil
}

func errorCode(payload []byte, at int) uint32 {
	if len(payload) < at+4 {
		return 0
	}
	return binary.BigEndian.Uint32(payload[at:])
}

// unpad takes the padding off, and as many bytes at the front.
func unpad(flags byte, payload []byte, front int) ([]byte, error) {
	padding := 0
	if flags&flagPadded != 0 {
		if len(payload) == 0 {
			return nil, errProtocol
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if front+padding > len(payload) {
		return nil, errProtocol
	}
	return payload[front : len(payload)-padding], nil
}

// headers reads a header or trailer with its continuations.
func (r *answerReader) headers(flags byte, id uint32, payload []byte) error {
	front := 0
	if flags&flagPriority != 0 {
		front = 5
	}
	part, err := unpad(flags, payload, front)
	if err != nil || id != stream {
		return errProtocol
	}
	block := append([]byte(nil), part...)
	for flags&flagEndHeaders == 0 {
		var kind byte
		if kind, flags, id, part, err = r.next(); err != nil {
			return err
		}
		if kind != frameContinuation || id != stream {
			return errProtocol
		}
		if block = append(block, part...); len(block) > maxBody {
			return errTooLong
		}
	}
	fields, err := r.decoder.DecodeFull(block)
	if err != nil {
		return fmt.Errorf("decode the header: %w", err)
	}
	for _, f := range fields {
		r.answer.fields[f.Name] = f.Value
	}
	return nil
}
