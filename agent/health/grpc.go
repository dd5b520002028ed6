package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"

	"golang.org/x/net/http2/hpack"

	"github.com/weirproject/weir/api"
)

// The protocol is gRPC over HTTP/2 with the messages of grpc.health.v1, written
// by hand: a request of one string and an answer of one enum need no generated
// code.

const grpcMethod = "/grpc.health.v1.Health/Check"

// maxGRPCAnswer bounds the answer's message, in bytes: an honest one has 2.
const maxGRPCAnswer = 4 << 10

// servingStatus are the names of HealthCheckResponse.ServingStatus.
var servingStatus = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const serving = 1

// grpcProbe is a request that is ready to be sent.
type grpcProbe struct {
	address netip.AddrPort
	request []byte
	tls     *tls.Config // nil: over plain TCP
}

func newGRPCProbe(check api.GRPCCheck, backend netip.AddrPort) probeFunc {
	p := &grpcProbe{address: withPort(backend, check.Port)}
	scheme := "http"
	if check.TLS {
		scheme = "https"
		p.tls = tlsConfig(api.HTTPSCheck{}, backend, nil, "h2")
	}
	p.request = http2Request([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme},
		{Name: ":path", Value: grpcMethod}, {Name: ":authority", Value: p.address.String()},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: userAgent},
	}, grpcRequest(check.Service))
	return p.probe
}

func (p *grpcProbe) probe(ctx context.Context) error {
	conn, done, err := open(ctx, p.address, p.tls)
	if err != nil {
		return err
	}
	defer done()
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != "h2" {
		return errNoHTTP2
	}
	if _, err := conn.Write(p.request); err != nil {
		return err
	}
	reader := readers.Get().(*bufio.Reader)
	defer readers.Put(reader)
	reader.Reset(conn)
	defer reader.Reset(nil)
	answer, err := newAnswerReader(reader, conn).read()
	if err != nil {
		return fmt.Errorf("read the answer to %s: %w", grpcMethod, err)
	}
	return grpcVerdict(answer)
}

// grpcRequest is a HealthCheckRequest{string service = 1} in a gRPC frame: a
// byte that says that it is not compressed, and its length.
func grpcRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service))), service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// grpcVerdict judges the answer: by its grpc-status first, since without success
// there is no message.
func grpcVerdict(answer http2Answer) error {
	if code := answer.fields[":status"]; code != "200" {
		return answered("%s answered HTTP status %s", grpcMethod, code)
	}
	switch code := answer.fields["grpc-status"]; code {
	case "0":
	case "":
		return answered("%s answered without a grpc-status: not a gRPC server", grpcMethod)
	default:
		said, err := url.PathUnescape(answer.fields["grpc-message"])
		if err != nil {
			said = answer.fields["grpc-message"]
		}
		return answered("%s answered grpc-status %s (%.200q)", grpcMethod, code, said)
	}
	status, err := grpcStatus(answer.body)
	if err != nil {
		return fmt.Errorf("read the answer to %s: %w", grpcMethod, err)
	}
	if status == serving {
		return nil
	}
	name := strconv.FormatUint(status, 10)
	if status < uint64(len(servingStatus)) {
		name = servingStatus[status]
	}
	return answered("%s answered %s", grpcMethod, name)
}

var errGRPCMessage = errors.New("the message is malformed")

// grpcStatus reads HealthCheckResponse{ServingStatus status = 1}. Fields that
// are not known are skipped, of a field given twice the last counts, and one
// that is absent is zero, as protobuf wants it.
func grpcStatus(frame []byte) (status uint64, err error) {
	if len(frame) < 5 || frame[0] != 0 || binary.BigEndian.Uint32(frame[1:]) != uint32(len(frame)-5) {
		return 0, errGRPCMessage
	}
	for b := frame[5:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errGRPCMessage
		}
		b = b[n:]
		value, n := uint64(0), 0
		switch tag & 7 {
		case 0: // varint
			value, n = binary.Uvarint(b)
		case 1: // 64 bits
			n = 8
		case 2: // bytes
			length, m := binary.Uvarint(b)
			if m > 0 && length <= uint64(len(b)-m) {
				n = m + int(length)
			}
		case 5: // 32 bits
			n = 4
		}
		if n <= 0 || n > len(b) {
			return 0, errGRPCMessage
		}
		if tag == 1<<3 { // field 1, a varint
			status = value
		}
		b = b[n:]
	}
	return status, nil
}
