package dnsproxy

import (
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/dns"
)

// way carries packed queries to an upstream over one protocol.
type way interface {
	// send carries a call's packet. Unless it fails at once, the call's deliver
	// is called later, from another goroutine: with replies until it takes one,
	// or with an error.
	send(c *call, packet []byte) error
	// cancel means that no reply is wanted any more.
	cancel(c *call)
	// close ends connections that carry nothing, and others once they do.
	close()
}

// ways to an upstream: its own, and the one for what does not fit a datagram.
type ways struct {
	first, second way
}

// call is one question to one upstream, with its retries in another form or over
// TCP.
type call struct {
	up    *upstream
	q     *question
	clock func() int64
	// done gets the reply, which is valid during the call only, or an error.
	// It is called once, or never after cancel.
	done func(c *call, r *response, err error)

	mu       sync.Mutex // guards what follows
	way      way
	packet   []byte
	form     dress
	retries  int
	ended    bool
	datagram bool
	link     *link // where the packet went, and its id there (UDP)
	id       uint16
	stream   *stream // likewise (TCP, TLS)
	stop     func()  // likewise (HTTPS)

	try      *try // whose call it is; nil for a probe's
	response response
}

// maxRetries bounds a call's packets: without EDNS, with a new cookie, over TCP.
const maxRetries = 3

var (
	errGone = errors.New("the question was given up")
	errCut  = errors.New("the reply is cut, though nothing limits it")
)

// start sends the question for the first time.
func (c *call) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.way, c.datagram = c.up.ways.first, c.up.config.Protocol == UDP
	c.up.queries.Add(1)
	return c.sendLocked()
}

// sendLocked wants mu held.
func (c *call) sendLocked() error {
	c.form = c.up.dresser.dress(c.q, c.datagram, c.clock())
	c.packet = c.q.pack(c.form)
	return c.way.send(c, c.packet)
}

// deliver gets a reply from the way, or an error. It tells whether the way need
// not wait for another one.
func (c *call) deliver(wire []byte, err error) (final bool) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return true
	}
	r, what := c.read(wire, &err)
	switch {
	case err != nil || what == take:
		c.ended = true
		c.mu.Unlock()
		c.done(c, r, err)
		return true
	case what == ignore:
		c.mu.Unlock()
		c.up.forged.Add(1)
		return false
	}
	defer c.mu.Unlock()
	if c.retries++; c.retries > maxRetries {
		c.fail(errors.New("the server cannot be understood"))
		return true
	}
	if what == overTCP {
		c.way, c.datagram = c.up.ways.second, false
	}
	if err := c.sendLocked(); err != nil {
		c.fail(err)
	}
	return true
}

// fail ends the call with an error. It wants mu held; the caller's goroutine is a
// way's, which holds no lock that done needs.
func (c *call) fail(err error) {
	c.ended = true
	c.mu.Unlock()
	defer c.mu.Lock()
	c.done(c, nil, err)
}

// read checks a reply against what was sent. It wants mu held.
func (c *call) read(wire []byte, err *error) (*response, verdict) {
	if *err != nil {
		return nil, take
	}
	fits := matches(c.packet, wire)
	if fits == noMatch {
		return nil, ignore
	}
	r := &c.response
	if broken := r.readFrom(c.q, wire); broken != nil {
		*err = broken
		return nil, take
	}
	if !c.datagram {
		if r.truncated {
			*err = errCut
			return nil, take
		}
		if !r.edns && c.form.edns && r.rcode == dns.RcodeFormatError {
			return r, c.up.dresser.judge(dress{edns: true}, exact, r, c.clock())
		}
		return r, take
	}
	return r, c.up.dresser.judge(c.form, fits, r, c.clock())
}

// cancel gives the question up.
func (c *call) cancel() {
	c.mu.Lock()
	c.ended = true
	way := c.way
	c.mu.Unlock()
	way.cancel(c)
}

// open makes the ways to an upstream.
func (f *forwarder) open(u Upstream) *upstream {
	if u.Protocol == "" {
		u.Protocol = UDP
	}
	up := &upstream{config: u, name: u.String()}
	switch u.Protocol {
	case UDP:
		up.ways = ways{newLinks(u.Address, up, f), newStreams(u, nil, f.guard)}
	case TCP:
		up.ways = ways{first: newStreams(u, nil, f.guard)}
	case TLS:
		up.ways = ways{first: newStreams(u, f.tlsConfig(u), f.guard)}
	case HTTPS:
		up.ways = ways{first: newWeb(u, f.tlsConfig(u), f.guard)}
	}
	return up
}

func (w ways) close() {
	w.first.close()
	if w.second != nil {
		w.second.close()
	}
}

// refusal is a reply that says the server will not answer.
func refusal(u *upstream, rcode int) error {
	return fmt.Errorf("ask %s: it says %s", u.name, dns.RcodeToString[rcode])
}
