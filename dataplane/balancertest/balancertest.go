// Package balancertest is what every dataplane.Balancer promises, as tests that
// run against any of them: with real sockets, servers in another network
// namespace, and a node of its own that the process makes of its network
// namespace. A sink's package calls Run from a test, in a process that may do
// so: see Isolated, and testenv/vm for another kernel.
package balancertest

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// Options tell what is tested.
type Options struct {
	// New opens the sink for this process's network namespace and cgroup. The
	// suite closes it, and calls New again as a restarted agent does.
	New func(t *testing.T) dataplane.Balancer
	// Cleanup removes everything that the sink has made.
	Cleanup func() error
	// Left lists, in words, what is there of the sink.
	Left func(t *testing.T) []string
	// Damages are what somebody else may do to the sink's objects, by name. The
	// next Set must put each right and count it.
	Damages map[string]func(t *testing.T)
	// Differs says how the sink differs from the promise of the test that is
	// named, which is then skipped.
	Differs map[string]string
	// Own are the sink's own tests, by name. They run after the promises, on the
	// same network: TCP servers at 10.80.0.11:8080, 10.80.0.12:8080 and
	// 10.80.0.13:8080 on another host; 10.80.0.1 is the node.
	Own map[string]func(t *testing.T)
}

// Ranges are the virtual networks of the suite's tables.
func Ranges() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24"), netip.MustParsePrefix("fd77:6569:7200::/112")}
}

// promises are the tests, in an order that finds the plain faults first.
var promises = []struct {
	name string
	test func(s *suite)
}{
	{"connections spread over the backends", (*suite).spread},
	{"weights decide the spread", (*suite).weights},
	{"IPv6 is served", (*suite).v6},
	{"UDP is served", (*suite).udp},
	{"every balance serves", (*suite).balances},
	{"one client stays with its backend by affinity", (*suite).affinity},
	{"one client stays with its backend by maglev", (*suite).maglev},
	{"frontends of a service share its backends", (*suite).frontends},
	{"a backend on the node itself serves", (*suite).hairpin},
	{"the backend sees the node's own address", (*suite).source},
	{"clients of other hosts are served", (*suite).forwarded},
	{"an empty service refuses at once", (*suite).empty},
	{"ports that are not served are refused", (*suite).unserved},
	{"ports that are not served are refused to other hosts", (*suite).unservedForwarded},
	{"a draining backend keeps its connections and gets no new ones", (*suite).draining},
	{"a service whose backends all drain refuses", (*suite).allDraining},
	{"connections to a backend that goes are reset", (*suite).down},
	{"a UDP socket moves when its backend goes", (*suite).udpMoves},
	{"a connected UDP socket moves or fails when its backend goes", (*suite).udpConnected},
	{"a removed service refuses", (*suite).removed},
	{"connections are counted", (*suite).counters},
	{"a second Set changes nothing", (*suite).idempotent},
	{"a restart adopts what is there", (*suite).restart},
	{"damage is repaired", (*suite).damage},
	{"Cleanup leaves nothing", (*suite).cleanup},
}

// Run runs the promises as subtests of t. It takes the process's network
// namespace for its node: addresses, links and forwarding change, and are not
// put back.
func Run(t *testing.T, o Options) {
	network := newNetwork(t)
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			if how, differs := o.Differs[p.name]; differs {
				t.Skip(how)
			}
			s := &suite{T: t, o: o, network: network}
			t.Cleanup(func() {
				if err := o.Cleanup(); err != nil {
					t.Errorf("Cleanup: %v", err)
				}
			})
			p.test(s)
		})
	}
	(&suite{T: t, network: network}).web() // for the sink's own
	for _, name := range slices.Sorted(maps.Keys(o.Own)) {
		t.Run(name, o.Own[name])
	}
	for name := range o.Differs {
		if !known(name) {
			t.Errorf("Differs names %q, which is no promise", name)
		}
	}
}

func known(name string) bool {
	for _, p := range promises {
		if p.name == name {
			return true
		}
	}
	return false
}

// suite is one promise under test.
type suite struct {
	*testing.T
	o       Options
	network *network
	sink    dataplane.Balancer
}

// open opens the sink, as a new agent does.
func (s *suite) open() {
	s.Helper()
	if s.sink != nil {
		if err := s.sink.Close(); err != nil {
			s.Fatalf("Close: %v", err)
		}
	}
	sink := s.o.New(s.T)
	s.sink = sink
	s.Cleanup(func() { sink.Close() })
}

// set makes the sink hold the services alone.
func (s *suite) set(services ...*dataplane.Service) dataplane.Changes {
	s.Helper()
	if s.sink == nil {
		s.open()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := s.sink.Set(ctx, dataplane.Table{Ranges: Ranges(), Services: services})
	if err != nil {
		s.Fatalf("Set: %v", err)
	}
	return c
}

// service makes one, whose backends are up and of weight 1, and serves it. The
// backends must be sorted.
func (s *suite) service(protocol api.Protocol, frontend string, backends ...string) *dataplane.Service {
	s.Helper()
	d := &dataplane.Service{Name: "test.default/" + string(protocol) + "/4", Protocol: protocol, Balance: api.Random,
		Frontends: []netip.AddrPort{netip.MustParseAddrPort(frontend)}}
	if d.Frontends[0].Addr().Is6() {
		d.Name = "test.default/" + string(protocol) + "/6"
	}
	for _, b := range backends {
		at := netip.MustParseAddrPort(b)
		s.network.serve(s.T, protocol, at)
		d.Backends = append(d.Backends, dataplane.Backend{Address: at, Weight: 1, State: api.Up})
	}
	fill(d)
	return d
}

// fill gives every backend that is up as many slots as its weight.
func fill(d *dataplane.Service) {
	d.Slots = nil
	for i, b := range d.Backends {
		if b.State == api.Up {
			for range b.Weight {
				d.Slots = append(d.Slots, uint32(i))
			}
		}
	}
}

// with is a copy of the service after a change.
func with(d *dataplane.Service, change func(d *dataplane.Service)) *dataplane.Service {
	next := *d
	next.Backends = append([]dataplane.Backend{}, d.Backends...)
	change(&next)
	fill(&next)
	return &next
}

// in is a copy of the service with one backend in another state.
func in(d *dataplane.Service, backend string, state api.BackendState) *dataplane.Service {
	return with(d, func(d *dataplane.Service) {
		for i := range d.Backends {
			if d.Backends[i].Address.String() == backend {
				d.Backends[i].State = state
			}
		}
	})
}
