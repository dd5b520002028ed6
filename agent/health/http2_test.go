package health

import (
	"bufio"
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// block encodes fields given as "name: value".
func block(fields ...string) []byte {
	var b headerBlock
	encoder := hpack.NewEncoder(&b)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return b
}

func frames(all ...[]byte) []byte { return slices.Concat(all...) }

func frame(kind, flags byte, id uint32, payload string) []byte {
	return appendFrame(nil, kind, flags, id, []byte(payload))
}

// readAnswer reads what a server sent; out is what it was told back.
func readAnswer(b []byte) (answer http2Answer, out []byte, err error) {
	var told bytes.Buffer
	r := newAnswerReader(bufio.NewReader(bytes.NewReader(b)), &told)
	answer, err = r.read()
	return answer, told.Bytes(), err
}

func TestAnswersOverHTTP2(t *testing.T) {
	settings := frame(frameSettings, 0, 0, "")
	ok, end := string(block(":status: 200", "a: 1")), string(block("grpc-status: 0", "a: 2"))
	header := frame(frameHeaders, flagEndHeaders, 1, ok)
	trailer := frame(frameHeaders, flagEndHeaders|flagEndStream, 1, end)
	for name, c := range map[string]struct {
		sent []byte
		body string
		told []byte
		err  string
	}{
		"plain": {frames(settings, header, frame(frameData, 0, 1, "hello"), trailer), "hello", frame(frameSettings, flagAck, 0, ""), ""},
		"what is not needed": {frames(settings, frame(8, 0, 0, "\x00\x00\xff\xff"), frame(99, 0xff, 7, "?"), frame(2, 0, 1, "\x00\x00\x00\x00\x10"), frame(frameSettings, flagAck, 0, ""),
			frame(frameGoAway, 0, 0, "\x00\x00\x00\x01\x00\x00\x00\x00"), header, trailer), "", frame(frameSettings, flagAck, 0, ""), ""},
		"pings": {frames(settings, frame(framePing, 0, 0, "12345678"), header, trailer), "", frames(frame(frameSettings, flagAck, 0, ""), frame(framePing, flagAck, 0, "12345678")), ""},
		"padding": {frames(settings, frame(frameHeaders, flagEndHeaders|flagPadded|flagPriority, 1, "\x03\x00\x00\x00\x00\x10"+ok+"xyz"),
			frame(frameData, flagPadded, 1, "\x02hellozz"), trailer), "hello", nil, ""},
		"continuations":               {frames(settings, frame(frameHeaders, 0, 1, ok[:1]), frame(frameContinuation, 0, 1, ok[1:2]), frame(frameContinuation, flagEndHeaders, 1, ok[2:]), trailer), "", nil, ""},
		"the end in the first header": {frames(settings, frame(frameHeaders, flagEndStream, 1, ok[:1]), frame(frameContinuation, flagEndHeaders, 1, ok[1:])), "", nil, ""},
		"no settings":                 {frames(header, trailer), "", nil, errNoHTTP2.Error()},
		"text":                        {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "", nil, errNoHTTP2.Error()},
		"an early end":                {frames(settings, header), "", nil, "EOF"},
		"an early end of a frame":     {frames(settings, header[:12]), "", nil, "unexpected EOF"},
		"a frame that is too long":    {frames(settings, frame(frameData, 0, 1, strings.Repeat("x", maxFrame+1))), "", nil, errTooLong.Error()},
		"a body that is too long":     {frames(settings, frame(frameData, 0, 1, strings.Repeat("x", maxGRPCAnswer+1))), "", nil, errTooLong.Error()},
		"a reset":                     {frames(settings, frame(frameReset, 0, 1, "\x00\x00\x00\x07")), "", nil, "the server reset the request (HTTP/2 error 7)"},
		"a short reset":               {frames(settings, frame(frameReset, 0, 1, "")), "", nil, "the server reset the request (HTTP/2 error 0)"},
		"going away":                  {frames(settings, frame(frameGoAway, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x0b")), "", nil, "the server is going away (HTTP/2 error 11)"},
		"a push":                      {frames(settings, frame(framePush, 0, 1, "\x00\x00\x00\x02")), "", nil, errProtocol.Error()},
		"another stream's data":       {frames(settings, frame(frameData, 0, 3, "x")), "", nil, errProtocol.Error()},
		"another stream's header":     {frames(settings, frame(frameHeaders, flagEndHeaders, 3, ok)), "", nil, errProtocol.Error()},
		"padding without length":      {frames(settings, frame(frameData, flagPadded, 1, "")), "", nil, errProtocol.Error()},
		"more padding than payload":   {frames(settings, frame(frameData, flagPadded, 1, "\x09hello")), "", nil, errProtocol.Error()},
		"a lone continuation":         {frames(settings, frame(frameContinuation, flagEndHeaders, 1, ok)), "", nil, errProtocol.Error()},
		"a broken continuation":       {frames(settings, frame(frameHeaders, 0, 1, ok), frame(framePing, 0, 0, "12345678")), "", nil, errProtocol.Error()},
		"an ended continuation":       {frames(settings, frame(frameHeaders, 0, 1, ok)), "", nil, "EOF"},
		"a header that is none":       {frames(settings, frame(frameHeaders, flagEndHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), "", nil, "decode the header: "},
		"endless continuations":       {frames(settings, frame(frameHeaders, 0, 1, ok), bytes.Repeat(frame(frameContinuation, 0, 1, strings.Repeat("\x00", maxFrame)), 5)), "", nil, errTooLong.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			answer, told, err := readAnswer(c.sent)
			if !strings.HasPrefix(errorText(err), c.err) || (err == nil) != (c.err == "") {
				t.Fatalf("got error %v, want %q", err, c.err)
			}
			if err != nil {
				return
			}
			if string(answer.body) != c.body || answer.fields[":status"] != "200" {
				t.Errorf("got %+v, want the body %q", answer, c.body)
			}
			if answer.fields["a"] == "2" != (answer.fields["grpc-status"] == "0") {
				t.Errorf("got %v, want the trailer over the header", answer.fields)
			}
			if c.told != nil && !bytes.Equal(told, c.told) {
				t.Errorf("the server was told %q, want %q", told, c.told)
			}
		})
	}
}

func FuzzHTTP2Answer(f *testing.F) {
	f.Add(frames(frame(frameSettings, 0, 0, ""), frame(frameHeaders, flagEndHeaders, 1, string(block(":status: 200"))),
		frame(frameData, 0, 1, "\x00\x00\x00\x00\x02\x08\x01"), frame(frameHeaders, flagEndHeaders|flagEndStream, 1, string(block("grpc-status: 0")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if answer, _, err := readAnswer(b); err == nil {
			_ = grpcVerdict(answer)
		}
	})
}
