package peers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// kind of a packet.
type kind byte

const (
	kindPing   kind = 1 // asks for an ack with the same nonce
	kindAck    kind = 2
	kindAsk    kind = 3 // asks to try whether a node is reached
	kindAnswer kind = 4 // to an ask
)

const (
	magic   = 0x5770 // "Wp"
	version = 1
	// sumSize is how much of the HMAC is sent, in bytes.
	sumSize = 16
	// maxPacket keeps packets below every path's MTU, in bytes.
	maxPacket = 1200
	// maxEntries in one packet: so many that fit with the longest names.
	maxEntries = 13
	maxName    = 63
)

// packet is what is sent. Every one is authenticated with the fleet's key.
//
// A recorded packet is of no use later: it names the session of its receiver,
// which is random and changes with each start, and within a session of the
// sender each sequence number counts once. An ack must bear the nonce of a ping
// that is under way.
type packet struct {
	kind     kind
	from     string
	session  uint64 // the sender's
	receiver uint64 // the receiver's, as the sender knows it; 0: not yet
	sequence uint64
	nonce    uint64
	// node asked about.
	node    string
	reached bool
	// digest of all that the sender knows; see gossip.go.
	digest  uint64
	entries []entry
}

var (
	errShort  = errors.New("packet is cut short")
	errForged = errors.New("packet has a wrong checksum")
	errOther  = errors.New("packet is of another protocol")
)

// encode appends the packet and its checksum.
func (p *packet) encode(b, key []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, magic)
	b = append(b, version, byte(p.kind))
	for _, n := range []uint64{p.session, p.receiver, p.sequence, p.nonce, p.digest} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = appendName(b, p.from)
	b = appendName(b, p.node)
	reached := byte(0)
	if p.reached {
		reached = 1
	}
	b = append(b, reached, byte(len(p.entries)))
	for _, e := range p.entries {
		b = appendName(b, e.node)
		b = binary.BigEndian.AppendUint64(b, e.incarnation)
		b = append(b, byte(e.rank))
	}
	sum := checksum(b[start:], key)
	return append(b, sum[:sumSize]...)
}

func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), maxName)]
	return append(append(b, byte(len(name))), name...)
}

func checksum(b, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return mac.Sum(nil)
}

// decode checks a packet before it looks into it.
func decode(b, key []byte) (*packet, error) {
	if len(b) < 4+sumSize {
		return nil, errShort
	}
	body, sum := b[:len(b)-sumSize], b[len(b)-sumSize:]
	if binary.BigEndian.Uint16(body) != magic || body[2] != version {
		return nil, errOther
	}
	if !hmac.Equal(checksum(body, key)[:sumSize], sum) {
		return nil, errForged
	}
	r := reader{b: body[3:]}
	p := &packet{kind: kind(r.byte())}
	for _, n := range []*uint64{&p.session, &p.receiver, &p.sequence, &p.nonce, &p.digest} {
		*n = r.uint64()
	}
	p.from, p.node = r.name(), r.name()
	p.reached = r.byte() == 1
	for range r.byte() {
		p.entries = append(p.entries, entry{node: r.name(), incarnation: r.uint64(), rank: rank(r.byte())})
	}
	if r.short {
		return nil, errShort
	}
	return p, nil
}

// reader takes values off the front; beyond the end it returns zeros.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short = true
		return make([]byte, n)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) name() string   { return string(r.take(int(r.byte()))) }

// replays is what is remembered of a sender, to take each packet once.
type replays struct {
	session uint64
	highest uint64
	window  uint64 // bit i: highest-i has come
	retired []uint64
}

// maxRetired sessions of a sender are remembered.
const maxRetired = 64

// fresh tells whether the packet is new, and remembers it. It must name the
// receiver's session.
func (r *replays) fresh(p *packet) bool {
	if p.session != r.session {
		for _, old := range r.retired {
			if old == p.session {
				return false
			}
		}
		if r.session != 0 {
			r.retired = append(r.retired[max(len(r.retired)-maxRetired+1, 0):], r.session)
		}
		r.session, r.highest, r.window = p.session, p.sequence, 1
		return true
	}
	switch {
	case p.sequence > r.highest:
		if ahead := p.sequence - r.highest; ahead < 64 {
			r.window = r.window<<ahead | 1
		} else {
			r.window = 1
		}
		r.highest = p.sequence
		return true
	case r.highest-p.sequence >= 64:
		return false
	}
	bit := uint64(1) << (r.highest - p.sequence)
	if r.window&bit != 0 {
		return false
	}
	r.window |= bit
	return true
}
