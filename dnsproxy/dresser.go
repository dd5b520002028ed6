package dnsproxy

import (
	"bytes"
	"crypto/rand"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// relearn is how long "it cannot" is believed of an upstream: servers are
// replaced, and a broken path must not degrade one for good.
const relearn = 10 * time.Minute

// ability is what an upstream can, as far as known.
type ability struct {
	yes     bool
	noUntil int64 // in nanoseconds since the proxy's start
	strikes int   // signs against it, in a row
}

func (a *ability) tryIt(now int64) bool { return now >= a.noUntil }

// confirm notes that it can.
func (a *ability) confirm() { a.yes, a.strikes = true, 0 }

// strike notes a sign that it cannot; enough in a row are a proof.
func (a *ability) strike(enough int, now int64) {
	if a.strikes++; a.strikes >= enough {
		*a = ability{noUntil: now + int64(relearn)}
	}
}

func (a *ability) describe(now int64) string {
	switch {
	case now < a.noUntil:
		return "no"
	case a.yes:
		return "yes"
	}
	return "unknown"
}

// dresser knows how to put questions to one upstream over UDP: with EDNS, in
// odd case (0x20), with a cookie. It learns each from the replies.
type dresser struct {
	mu      sync.Mutex // guards what follows
	edns    ability
	odd     ability
	cookies ability
	client  [8]byte // our cookie, drawn for this server alone
	server  []byte  // the last one that it gave
}

// strikes that prove that an upstream cannot do a thing any more.
const (
	oddStrikes    = 3
	cookieStrikes = 3
)

// dress gives the form of the next question; secure questions need EDNS
// whatever has been learnt.
func (d *dresser) dress(q *question, datagram bool, now int64) dress {
	d.mu.Lock()
	defer d.mu.Unlock()
	form := dress{edns: d.edns.tryIt(now) || q.do}
	if !datagram {
		return form // nobody but the server can answer there
	}
	form.odd = d.odd.tryIt(now)
	if form.edns && d.cookies.tryIt(now) {
		if d.client == [8]byte{} {
			rand.Read(d.client[:])
		}
		form.cookie = append(append(make([]byte, 0, 40), d.client[:]...), d.server...)
	}
	return form
}

// verdict is what to do with a reply.
type verdict uint8

const (
	take    verdict = iota
	ignore          // it may be forged; the true one may come yet
	again           // ask once more, in the form that is right by now
	overTCP         // ask over TCP, where a forger has no chance
)

// judge looks at a reply to a question that was put in a form over UDP.
func (d *dresser) judge(form dress, fits match, r *response, now int64) verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	if form.odd {
		switch {
		case fits == exact:
			d.odd.confirm()
		case d.odd.yes:
			d.odd.strike(oddStrikes, now)
			return overTCP
		default:
			d.odd.strike(1, now)
		}
	}
	if r.truncated {
		return overTCP
	}
	if form.edns && !r.edns && (r.rcode == dns.RcodeFormatError || r.rcode == dns.RcodeNotImplemented) {
		d.edns.strike(1, now) // an old server that does not know EDNS (RFC 6891, 7)
		return again
	}
	if r.edns {
		d.edns.confirm()
	}
	if form.cookie == nil {
		return take
	}
	return d.judgeCookie(r, now)
}

// judgeCookie wants mu held. A server that gave cookies gives one with every
// answer, and none but it knows ours (RFC 7873, 5.3).
func (d *dresser) judgeCookie(r *response, now int64) verdict {
	cookie := option(r.options, dns.EDNS0COOKIE)
	switch {
	case len(cookie) >= 16 && len(cookie) <= 40 && bytes.Equal(cookie[:8], d.client[:]):
		d.cookies.confirm()
		d.server = append(d.server[:0], cookie[8:]...)
		if r.rcode == dns.RcodeBadCookie {
			return again
		}
	case len(cookie) > 0: // somebody else's
		return ignore
	case d.cookies.yes:
		d.cookies.strike(cookieStrikes, now)
		d.server = d.server[:0]
		return overTCP
	case r.rcode == dns.RcodeFormatError:
		d.cookies.strike(1, now) // confused by the option
		return again
	}
	return take
}

// describe says what the upstream can: EDNS, cookies, odd case.
func (d *dresser) describe(now int64) (edns, cookies, odd string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.edns.describe(now), d.cookies.describe(now), d.odd.describe(now)
}
