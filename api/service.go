package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service is a virtual IP and the backends behind it.
type Service struct {
	// Name of the service, one or more DNS labels.
	Name string `json:"name"`
	// Namespace the service lives in; empty means DefaultNamespace.
	Namespace string `json:"namespace,omitempty"`
	// VIPs are where clients connect: ip:port, or name:port.
	VIPs []VIP `json:"vips"`
	// Protocol is tcp (the default) or udp.
	Protocol Protocol `json:"protocol,omitempty"`
	// Balance is how a backend is picked; empty means random.
	Balance Balance `json:"balance,omitempty"`
	// Affinity keeps a client on its backend for this long after its last
	// connection; zero means no affinity.
	Affinity Duration `json:"affinity,omitzero"`
	// AffinityBy says who counts as one client; empty means address.
	AffinityBy AffinityBy `json:"affinity_by,omitempty"`
	// Prefer sends connections to backends on the client's own node, or in its
	// zone, as long as enough of them are up; empty means no preference.
	Prefer Prefer `json:"prefer,omitempty"`
	// SlowStart is how long a backend that comes up takes to get its full
	// share; zero means at once.
	SlowStart Duration `json:"slow_start,omitzero"`
	// MaxConnections is how many connections to the service may be open at once
	// from one node; further ones are refused. Zero means no limit.
	MaxConnections uint32 `json:"max_connections,omitempty"`
	// Drain is how long the connections to a draining backend may live; then
	// they are reset. Zero means until they end by themselves.
	Drain Duration `json:"drain,omitzero"`
	// FailOpen uses all backends while every one fails its checks, instead of
	// refusing connections.
	FailOpen bool `json:"fail_open,omitempty"`
	// Outlier takes a backend out for a while when connections to it fail; nil
	// means never.
	Outlier *Outlier `json:"outlier,omitempty"`
	// Edge makes the service reachable from outside, through the fleet's edge
	// nodes; nil means inside only.
	Edge *Edge `json:"edge,omitempty"`
	// Backends serve the connections. May be empty: the name stays and
	// connections are refused.
	Backends []Backend `json:"backends,omitempty"`
	// Health declares the active check of every backend; nil means none, and
	// every backend counts as healthy.
	Health *HealthCheck `json:"health,omitempty"`
}

// Backend is one server of a service.
type Backend struct {
	// Address is where it listens.
	Address netip.AddrPort `json:"address"`
	// Weight is its share against the others', 1 to 1000; nil means 1. Zero
	// gives it no new connections.
	Weight *int `json:"weight,omitempty"`
	// Node is the name of the node it runs on; empty when unknown.
	Node string `json:"node,omitempty"`
	// State is wanted by the operator: up (the default), draining, down.
	State BackendState `json:"state,omitempty"`
}

// EffectiveWeight is the weight with its default applied.
func (b Backend) EffectiveWeight() int {
	if b.Weight == nil {
		return 1
	}
	return *b.Weight
}

// Kind implements Object.
func (Service) Kind() string { return "service" }

// Key is name.namespace, as in the service's DNS name.
func (s Service) Key() string { return s.Name + "." + s.EffectiveNamespace() }

// EffectiveNamespace is the namespace with its default applied.
func (s Service) EffectiveNamespace() string {
	if s.Namespace == "" {
		return DefaultNamespace
	}
	return s.Namespace
}

// EffectiveProtocol is the protocol with its default applied.
func (s Service) EffectiveProtocol() Protocol {
	if s.Protocol == "" {
		return TCP
	}
	return s.Protocol
}

// reservedNamespaces are labels that have a meaning of their own in DNS names.
var reservedNamespaces = []string{"vip", "node", "agent", "slave"}

// MaxWeight is the largest weight of a backend.
const MaxWeight = 1000

// Validate implements Object.
func (s Service) Validate() error {
	var f faults
	checkName(&f, "name", s.Name)
	if s.Namespace != "" && !isLabel(s.Namespace) {
		f.add("namespace", "%q %s", s.Namespace, labelRule)
	}
	if slices.Contains(reservedNamespaces, s.Namespace) {
		f.add("namespace", "%q is taken by Weir's own names; taken are %s", s.Namespace, strings.Join(reservedNamespaces, ", "))
	}
	if len(s.VIPs) == 0 {
		f.add("vips", `is empty: give at least one "ip:port" or "name:port"`)
	}
	seen := map[VIP]bool{}
	for i, v := range s.VIPs {
		field := fmt.Sprintf("vips[%d]", i)
		if err := v.check(); err != nil {
			f.add(field, "%v", err)
		}
		if seen[v] {
			f.add(field, "%q is listed twice", v)
		}
		seen[v] = true
	}
	s.validateBehaviour(&f)
	backends := map[netip.AddrPort]bool{}
	for i, b := range s.Backends {
		field := fmt.Sprintf("backends[%d]", i)
		switch a := b.Address.Addr(); {
		case !b.Address.IsValid():
			f.add(field+".address", "is missing: give ip:port")
		case b.Address.Port() == 0:
			f.add(field+".address", "%s has port 0", b.Address)
		case a.IsUnspecified() || a.IsMulticast():
			f.add(field+".address", "%s is not the address of one host", a)
		case a.Zone() != "":
			f.add(field+".address", "%s has a zone; write the plain address", a)
		}
		if backends[b.Address] {
			f.add(field+".address", "%s is listed twice", b.Address)
		}
		backends[b.Address] = true
		if w := b.EffectiveWeight(); w < 0 || w > MaxWeight {
			f.add(field+".weight", "%d is not within 0 to %d", w, MaxWeight)
		}
	}
	if s.Health != nil {
		s.Health.validate(&f, "health", s.EffectiveProtocol())
		if t := s.Health.TCP; t != nil && t.Tunnel && (s.Edge == nil || s.Edge.Deliver != "" && s.Edge.Deliver != DSR || t.Port != 0) {
			f.add("health.tcp.tunnel", "needs edge with deliver: dsr, and no port of its own")
		}
	}
	return f.err()
}

func (s Service) validateBehaviour(f *faults) {
	for _, d := range []struct {
		field string
		value Duration
	}{{"affinity", s.Affinity}, {"slow_start", s.SlowStart}, {"drain", s.Drain}} {
		if d.value < 0 {
			f.add(d.field, "%s is negative", d.value)
		}
	}
	if s.AffinityBy != "" && s.Affinity == 0 {
		f.add("affinity_by", "has no effect without affinity: give affinity a duration such as 10m")
	}
	if o := s.Outlier; o != nil {
		if s.EffectiveProtocol() != TCP {
			f.add("outlier", "needs tcp: only a tcp connection is seen to fail")
		}
		if o.Failures < 0 {
			f.add("outlier.failures", "%d is negative", o.Failures)
		}
		if o.Ejection < 0 {
			f.add("outlier.ejection", "%s is negative", o.Ejection)
		}
		if o.MaxEjected < 0 || o.MaxEjected > 100 {
			f.add("outlier.max_ejected", "%d is not a percentage within 0 to 100", o.MaxEjected)
		}
	}
	if e := s.Edge; e != nil {
		for i, p := range e.Allow {
			if !p.IsValid() || p != p.Masked() {
				f.add(fmt.Sprintf("edge.allow[%d]", i), "%s is not a network: write %s", p, p.Masked())
			}
		}
		if e.QUIC && s.EffectiveProtocol() != UDP {
			f.add("edge.quic", "needs protocol: udp")
		}
		if e.SYNRate > 0 && s.EffectiveProtocol() != TCP {
			f.add("edge.syn_rate", "needs protocol: tcp")
		}
	}
}

// AffinityBy says who counts as one client of a service with affinity.
type AffinityBy string

// What tells clients apart.
const (
	// ByAddress: the address that the client's socket is bound to, or else its
	// network namespace, since an unbound socket has no address yet.
	ByAddress AffinityBy = "address"
	// ByNamespace: the network namespace, so a container or the node, whatever
	// its sockets are bound to.
	ByNamespace AffinityBy = "namespace"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *AffinityBy) UnmarshalText(t []byte) error { return oneOf(a, t, ByAddress, ByNamespace) }

// Prefer says which backends are near to a client.
type Prefer string

// The degrees of nearness.
const (
	PreferNode Prefer = "node" // on the client's own node, then in its zone
	PreferZone Prefer = "zone" // on nodes of its zone
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Prefer) UnmarshalText(t []byte) error { return oneOf(p, t, PreferNode, PreferZone) }

// VIP is where clients connect: an address or a name, and a port.
type VIP struct {
	Name string     // set for a named VIP
	Addr netip.Addr // set for a literal VIP
	Port uint16
}

// ParseVIP reads "198.18.0.10:80", "[fd00::1]:80" or "web:80".
func ParseVIP(s string) (VIP, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return VIP{Addr: ap.Addr().Unmap(), Port: ap.Port()}, nil
	}
	host, port, found := cutLast(s, ':')
	if !found || host == "" {
		return VIP{}, fmt.Errorf("%q is neither ip:port nor name:port", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return VIP{}, fmt.Errorf("%q: the port %q is not within 1 to 65535", s, port)
	}
	return VIP{Name: strings.ToLower(host), Port: uint16(n)}, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (v VIP) check() error {
	switch {
	case v.Port == 0:
		return fmt.Errorf("%q: the port must be within 1 to 65535", v)
	case v.Name != "" && !isLabel(v.Name):
		return fmt.Errorf("%q: the name %s", v, labelRule)
	case v.Name == "" && (v.Addr.IsUnspecified() || v.Addr.IsLoopback() || v.Addr.IsMulticast() || v.Addr.IsLinkLocalUnicast() || v.Addr.Zone() != ""):
		return fmt.Errorf("%q: %s cannot be a virtual address", v, v.Addr)
	}
	return nil
}

func (v VIP) String() string {
	if v.Name != "" {
		return v.Name + ":" + strconv.Itoa(int(v.Port))
	}
	if !v.Addr.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(v.Addr, v.Port).String()
}

// MarshalText implements encoding.TextMarshaler.
func (v VIP) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *VIP) UnmarshalText(b []byte) (err error) {
	*v, err = ParseVIP(string(b))
	return err
}

// Protocol is a transport protocol.
type Protocol string

// The protocols of services.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Protocol) UnmarshalText(b []byte) error { return oneOf(p, b, TCP, UDP) }

// Balance is the way a backend is picked for a new connection.
type Balance string

// The ways of balancing.
const (
	Random    Balance = "random"     // each connection by chance, by weight
	Maglev    Balance = "maglev"     // one client, one backend; few move on a change
	P2C       Balance = "p2c"        // of two by chance, the one with fewer open connections for its weight
	LeastConn Balance = "least-conn" // fewest open connections; eBPF does p2c for it
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Balance) UnmarshalText(t []byte) error { return oneOf(b, t, Random, Maglev, P2C, LeastConn) }

// BackendState says which connections a backend gets.
type BackendState string

// The states of a backend.
const (
	Up       BackendState = "up"       // new and old connections
	Draining BackendState = "draining" // old connections only
	Down     BackendState = "down"     // none
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *BackendState) UnmarshalText(b []byte) error { return oneOf(s, b, Up, Draining, Down) }

// oneOf sets p to the text when it is one of the words.
func oneOf[T ~string](p *T, text []byte, words ...T) error {
	list := make([]string, len(words))
	for i, w := range words {
		if string(text) == string(w) {
			*p = w
			return nil
		}
		list[i] = string(w)
	}
	return fmt.Errorf("%q is not one of %s", text, strings.Join(list, ", "))
}

// Duration is a time span written as "10m" or "1.5s".
type Duration time.Duration

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf(`%q is not a duration such as "500ms", "2s" or "10m"`, b)
	}
	*d = Duration(v)
	return nil
}
