package dnsproxy

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// errNoMatch is an answer to something else than was asked.
var errNoMatch = errors.New("the reply's question is not ours")

// question is what is asked of an upstream.
type question struct {
	name     []byte // lower case, on the wire
	qtype    uint16
	do       bool
	cd, ad   bool
	withEDNS bool
}

// pack makes a query with a fresh id that nobody can guess (RFC 5452, 9).
func (q question) pack() []byte {
	var id [2]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	flags := uint16(flagRD)
	if q.cd {
		flags |= flagCD
	}
	if q.ad {
		flags |= flagAD
	}
	m := append([]byte(nil), id[0], id[1], byte(flags>>8), byte(flags), 0, 1, 0, 0, 0, 0, 0, 0)
	m = append(m, q.name...)
	m = binary.BigEndian.AppendUint16(m, q.qtype)
	m = binary.BigEndian.AppendUint16(m, dns.ClassINET)
	if q.withEDNS {
		m[11] = 1
		m = append(m, 0, 0, byte(dns.TypeOPT), udpSize>>8, udpSize&0xFF, 0, 0, 0, 0, 0, 0)
		if q.do {
			m[len(m)-4] = flagDO >> 8
		}
	}
	return m
}

// matches tells whether a reply belongs to a query: id, response bit, opcode
// and question. Upstreams may change the name's case.
func matches(sent, got []byte) bool {
	end := skipName(sent, headerSize) + 4
	if len(got) < end || got[0] != sent[0] || got[1] != sent[1] || got[2]&0xF8 != flagQR>>8 || got[4] != 0 || got[5] != 1 {
		return false
	}
	for i := headerSize; i < end-4; i++ {
		c := got[i]
		if c-'A' < 26 {
			c += 'a' - 'A'
		}
		if c != sent[i] {
			return false
		}
	}
	return string(got[end-4:end]) == string(sent[end-4:end])
}

// exchange asks one upstream over UDP, from a source port that the kernel draws
// for this query alone, and over TCP when the answer was cut. It returns when
// there is an answer or ctx ends.
func exchange(ctx context.Context, upstream netip.AddrPort, q question) (*dns.Msg, error) {
	q.withEDNS = true
	m, err := exchangeBoth(ctx, upstream, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) && m.IsEdns0() == nil {
		// An old server that does not know EDNS (RFC 6891, 7).
		q.withEDNS = false
		return exchangeBoth(ctx, upstream, q)
	}
	return m, err
}

func exchangeBoth(ctx context.Context, upstream netip.AddrPort, q question) (*dns.Msg, error) {
	m, err := roundTrip(ctx, "udp", upstream, q.pack())
	if err == nil && m.Truncated {
		return roundTrip(ctx, "tcp", upstream, q.pack())
	}
	return m, err
}

func roundTrip(ctx context.Context, network string, upstream netip.AddrPort, sent []byte) (*dns.Msg, error) {
	// A connected UDP socket takes packets from the upstream's address only.
	conn, err := (&net.Dialer{}).DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var got []byte
	if network == "tcp" {
		got, err = overTCP(conn, sent)
	} else {
		got, err = overUDP(conn, sent)
	}
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	if err := m.Unpack(got); err != nil {
		if m.Truncated && network == "udp" {
			return m, nil // cut within a record: TCP gives the whole
		}
		return nil, fmt.Errorf("read the reply: %w", err)
	}
	return m, nil
}

func overUDP(conn net.Conn, sent []byte) ([]byte, error) {
	if _, err := conn.Write(sent); err != nil {
		return nil, err
	}
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		if matches(sent, buffer[:n]) {
			return buffer[:n], nil
		}
		// A forgery or a late reply: the true one may still come.
	}
}

func overTCP(conn net.Conn, sent []byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint16(nil, uint16(len(sent)))
	if _, err := conn.Write(append(frame, sent...)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, frame[:2]); err != nil {
		return nil, err
	}
	got := make([]byte, binary.BigEndian.Uint16(frame))
	if _, err := io.ReadFull(conn, got); err != nil {
		return nil, err
	}
	if !matches(sent, got) {
		return nil, errNoMatch
	}
	return got, nil
}
