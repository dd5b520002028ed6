package dnsproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ForwardZone says who answers a name and all below it that are not the
// cluster's.
type ForwardZone struct {
	// Zone such as corp.example, or "." for every name. The longest match wins.
	Zone string
	// Upstreams, of which the quickest that works is asked. Without any the
	// zone's names are refused.
	Upstreams []Upstream
}

// Access says who may ask for a name and all below it, the cluster's names
// included. Others are refused.
type Access struct {
	// Zone, as in ForwardZone.
	Zone string
	// Allow is who may ask; nobody when empty.
	Allow []netip.Prefix
}

// Forwarding is what may change while the proxy runs (see SetForwarding).
type Forwarding struct {
	Zones  []ForwardZone
	Access []Access
	// Transfer lists who may fetch the cluster's zones whole (AXFR, over TCP).
	Transfer []netip.Prefix
}

// Validate names what cannot be. listen is where the proxy itself is asked: an
// upstream at one of these addresses would be a loop.
func (f Forwarding) Validate(listen []netip.AddrPort) error {
	_, err := f.compile(listen, nil, func(u Upstream) *upstream { return &upstream{config: u} })
	return err
}

// routes is a Forwarding ready for use; it never changes.
type routes struct {
	zones map[string]*route // by wire name
	// access is nil when everybody may ask for everything.
	access    map[string][]netip.Prefix
	transfer  []netip.Prefix
	upstreams []*upstream // of all zones, each once
	flags     uint16      // of every answer: RA where we forward at all
}

// route is a zone with its upstreams.
type route struct {
	zone      string // wire name
	name      string
	upstreams []*upstream
}

// compile checks f and resolves its names. Upstreams that are in before keep
// what has been learnt of them, and zones that are the same stay the same.
func (f Forwarding) compile(listen []netip.AddrPort, before *routes, make func(Upstream) *upstream) (*routes, error) {
	r := &routes{zones: map[string]*route{}, transfer: f.Transfer}
	known := map[string]*upstream{}
	if before != nil {
		for _, u := range before.upstreams {
			known[u.name] = u
		}
	}
	for _, z := range f.Zones {
		name, err := anyName(z.Zone)
		if err != nil {
			return nil, fmt.Errorf("forward zone %q: %w", z.Zone, err)
		}
		if r.zones[name] != nil {
			return nil, fmt.Errorf("forward zone %q: is there twice", z.Zone)
		}
		next := &route{zone: name, name: strings.TrimSuffix(z.Zone, ".") + "."}
		for _, u := range z.Upstreams {
			if err := checkUpstream(u, listen); err != nil {
				return nil, fmt.Errorf("forward zone %q: upstreams: %w", z.Zone, err)
			}
			if known[u.String()] == nil {
				known[u.String()] = make(u)
			}
			one := known[u.String()]
			if slices.Contains(next.upstreams, one) {
				return nil, fmt.Errorf("forward zone %q: upstreams: %s is there twice", z.Zone, u)
			}
			next.upstreams = append(next.upstreams, one)
			if !slices.Contains(r.upstreams, one) {
				r.upstreams = append(r.upstreams, one)
			}
		}
		if before != nil && before.zones[name] != nil && slices.Equal(before.zones[name].upstreams, next.upstreams) {
			next = before.zones[name]
		}
		r.zones[name] = next
	}
	if len(r.upstreams) > 0 {
		r.flags = flagRA
	}
	return r, f.compileAccess(r)
}

func (f Forwarding) compileAccess(r *routes) error {
	for _, a := range f.Access {
		name, err := anyName(a.Zone)
		if err != nil {
			return fmt.Errorf("access to zone %q: %w", a.Zone, err)
		}
		if r.access == nil {
			r.access = map[string][]netip.Prefix{}
		}
		if _, twice := r.access[name]; twice {
			return fmt.Errorf("access to zone %q: is there twice", a.Zone)
		}
		r.access[name] = a.Allow
	}
	all := f.Transfer
	for _, a := range f.Access {
		all = append(all[:len(all):len(all)], a.Allow...)
	}
	if slices.ContainsFunc(all, func(p netip.Prefix) bool { return !p.IsValid() }) {
		return errors.New("access: a prefix is not valid")
	}
	return nil
}

func checkUpstream(u Upstream, listen []netip.AddrPort) error {
	if err := u.Validate(); err != nil {
		return err
	}
	for _, l := range listen {
		if isSelf(u.Address, l) {
			return fmt.Errorf("%s is the proxy's own address: it would ask itself without end", u)
		}
	}
	return nil
}

// isSelf tells whether packets to an upstream reach our own listener.
func isSelf(upstream, listen netip.AddrPort) bool {
	return upstream.Port() == listen.Port() && upstream.Addr().Unmap() == listen.Addr().Unmap()
}

// match gives the route of a wire name's longest zone; nil when none has it or
// its zone has no upstream.
func (r *routes) match(name []byte) *route {
	for {
		if z := r.zones[string(name)]; z != nil {
			if len(z.upstreams) == 0 {
				return nil
			}
			return z
		}
		if name[0] == 0 {
			return nil
		}
		name = name[1+name[0]:]
	}
}

// allows tells whether a client may ask for a name. The proxy itself, which has
// no address, may.
func (r *routes) allows(name []byte, client netip.Addr) bool {
	if r.access == nil || !client.IsValid() {
		return true
	}
	for {
		if prefixes, ok := r.access[string(name)]; ok {
			return contains(prefixes, client)
		}
		if name[0] == 0 {
			return true
		}
		name = name[1+name[0]:]
	}
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
