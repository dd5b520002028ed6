package vip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// world is a fleet that changes at random: what is wanted, and what is observed.
type world struct {
	random *rand.Rand
	s      *api.Snapshot
	down   map[netip.AddrPort]bool
	since  map[netip.AddrPort]time.Time
	now    time.Time
}

func (w *world) options(c *Compiler) Options {
	return Options{
		Ranges: []netip.Prefix{range4}, Now: w.now, Edge: &EdgeOptions{}, Delivery: &DeliveryOptions{},
		State: func(_ string, _ api.Protocol, b netip.AddrPort) (api.BackendState, string) {
			if w.down[b] {
				return api.Down, "no answer"
			}
			return api.Up, ""
		},
		UpSince: func(_ string, _ api.Protocol, b netip.AddrPort) time.Time { return w.since[b] },
	}
}

// backend is one of few addresses, so that services share and repeat them.
func (w *world) backend() api.Backend {
	b := api.Backend{Node: []string{"", "", "a1", "a2", "a3", "lost"}[w.random.IntN(6)]}
	b.State = []api.BackendState{"", "", "", "", api.Up, api.Down, api.Draining}[w.random.IntN(7)]
	if n := w.random.IntN(12); n < 4 {
		b.Weight = &n
	}
	text := fmt.Sprintf("10.0.0.%d:80", 1+w.random.IntN(30))
	if w.random.IntN(6) == 0 {
		text = fmt.Sprintf("[fd00::%d]:80", 1+w.random.IntN(30))
	}
	b.Address = netip.MustParseAddrPort(text)
	return b
}

func (w *world) service(t *testing.T, name int) api.Service {
	pick := func(n int) int { return w.random.IntN(n) }
	s := api.Service{
		Name: fmt.Sprintf("s%d", name), Namespace: []string{"", "shop", "s-1"}[name%3],
		Protocol: []api.Protocol{"", api.TCP, api.UDP}[name%3],
		Balance:  []api.Balance{"", api.Maglev, api.Maglev, api.P2C, api.LeastConn}[pick(5)],
		Prefer:   []api.Prefer{"", "", api.PreferNode, api.PreferZone}[pick(4)],
		FailOpen: pick(3) == 0, MaxConnections: uint32(pick(2)),
	}
	if pick(3) == 0 {
		s.SlowStart = api.Duration(time.Minute)
	}
	if pick(3) == 0 {
		s.Edge = &api.Edge{Deliver: []api.Deliver{"", api.IPIP, api.NAT}[pick(3)]}
	}
	for range 1 + pick(2) {
		s.VIPs = append(s.VIPs, parseVIP(t, []string{
			fmt.Sprintf("v%d:%d", name%7, 80+pick(3)), fmt.Sprintf("192.0.2.%d:80", 1+pick(9)), "10.0.0.1:80",
		}[pick(3)]))
	}
	for range pick(9) {
		s.Backends = append(s.Backends, w.backend())
	}
	return s
}

// change makes the next snapshot, or another state of a backend; it returns the
// services that this touches.
func (w *world) change(t *testing.T) (touched []ServiceRef) {
	next := *w.s
	services := slices.Clone(w.s.Services)
	pick := func(n int) int { return w.random.IntN(n) }
	i := pick(len(services))
	switch pick(9) {
	case 0: // comes
		services = slices.Insert(services, i, w.service(t, 100+pick(100)))
	case 1: // goes
		if len(services) > 3 {
			services = slices.Delete(services, i, i+1)
		}
	case 2: // another document of the same name
		for n := range 40 {
			if s := w.service(t, n); s.Key() == services[i].Key() {
				services[i] = s
			}
		}
	case 3: // one backend more
		services[i].Backends = append(slices.Clone(services[i].Backends), w.backend())
	case 4: // a setting alone
		services[i].MaxConnections++
		services[i].FailOpen = !services[i].FailOpen
	case 5:
		next.Nodes = slices.Clone(next.Nodes)
		next.Nodes[pick(len(next.Nodes))].Zone = []string{"", "east", "west"}[pick(3)]
		next.Node = next.Nodes[0]
	case 6, 7: // health; the snapshot stays
		b := w.backend().Address
		if w.down[b] = !w.down[b]; !w.down[b] {
			w.since[b] = w.now
		}
		for i := range services {
			if slices.ContainsFunc(services[i].Backends, func(x api.Backend) bool { return x.Address == b }) {
				touched = append(touched, refOf(&services[i]))
			}
		}
		return touched
	case 8:
		w.now = w.now.Add(time.Duration(pick(90)) * time.Second)
		return nil
	}
	next.Services = services
	var err error
	if next.VIPs, err = Allot(w.s.VIPs, services, range4, range6); err != nil {
		t.Fatal(err)
	}
	w.s = &next
	return touched
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 7)), down: map[netip.AddrPort]bool{}, since: map[netip.AddrPort]time.Time{}, now: time.Unix(1000, 0)}
	var services []api.Service
	for n := range 20 {
		services = append(services, w.service(t, n))
	}
	w.s = snapshot(t, services...)
	w.s.Nodes = append(slices.Clone(w.s.Nodes), api.Node{Name: "a3", Role: api.RolePublic, Zone: "east", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.3")}})
	return w
}

func TestTheCompilerMakesWhatCompileMakes(t *testing.T) {
	for seed := range uint64(12) {
		w := newWorld(t, seed)
		var c Compiler
		var touched []ServiceRef
		var before Result
		for step := range 60 {
			got := c.Compile(w.s, w.options(&c), Changed{Services: touched})
			o := w.options(&c)
			o.Bases = c.Bases()
			want := new(Compiler).Compile(w.s, o, Changed{})
			compareResults(t, fmt.Sprintf("seed %d, step %d", seed, step), got, want)
			comparePointers(t, before, got)
			if checked := Check(w.s); !slices.Equal(checked, got.Skipped) {
				t.Errorf("seed %d, step %d: Check lists %+v, and %+v were skipped", seed, step, checked, got.Skipped)
			}
			if t.Failed() {
				return
			}
			before = got
			touched = w.change(t)
		}
	}
}

func compareResults(t *testing.T, when string, got, want Result) {
	t.Helper()
	if !slices.EqualFunc(got.Table.Services, want.Table.Services, sameTable) || !slices.Equal(got.Table.Ranges, want.Table.Ranges) {
		t.Errorf("%s: got table %+v\nwant %+v", when, names(got.Table.Services), names(want.Table.Services))
		for i := range min(len(got.Table.Services), len(want.Table.Services)) {
			if a, b := got.Table.Services[i], want.Table.Services[i]; !sameTable(a, b) {
				t.Errorf("got %+v\nwant %+v", a, b)
				break
			}
		}
	}
	if !slices.Equal(got.Skipped, want.Skipped) || !slices.Equal(got.EdgeSkipped, want.EdgeSkipped) {
		t.Errorf("%s: skipped %+v and %+v\nwant %+v and %+v", when, got.Skipped, got.EdgeSkipped, want.Skipped, want.EdgeSkipped)
	}
	withoutPast := func(e *dataplane.EdgeService) *dataplane.EdgeService { c := *e; c.Previous = nil; return &c }
	if !slices.EqualFunc(got.Edge.Services, want.Edge.Services, func(a, b *dataplane.EdgeService) bool {
		return sameEdge(withoutPast(a), withoutPast(b))
	}) {
		t.Errorf("%s: other edge tables", when)
	}
	if !slices.EqualFunc(got.Delivery.Services, want.Delivery.Services, sameEdge) || !slices.Equal(got.Delivery.Edges, want.Delivery.Edges) {
		t.Errorf("%s: other tables of local backends", when)
	}
}

// comparePointers fails when a service that is the same has another pointer.
func comparePointers(t *testing.T, before, after Result) {
	t.Helper()
	old := map[string]*dataplane.Service{}
	for _, s := range before.Table.Services {
		old[s.Name] = s
	}
	for _, s := range after.Table.Services {
		if sameTable(old[s.Name], s) && old[s.Name] != s {
			t.Errorf("%s is the same, and has another pointer", s.Name)
		}
	}
	oldEdge := map[string]*dataplane.EdgeService{}
	for _, s := range before.Edge.Services {
		oldEdge[s.Name] = s
	}
	for _, s := range after.Edge.Services {
		if sameEdge(oldEdge[s.Name], s) && oldEdge[s.Name] != s {
			t.Errorf("the edge service %s is the same, and has another pointer", s.Name)
		}
	}
}

func names(services []*dataplane.Service) (all []string) {
	for _, s := range services {
		all = append(all, s.Name)
	}
	return all
}

// Snapshots that were read anew share nothing with the ones before.
func TestADocumentThatWasReadAgainKeepsItsTable(t *testing.T) {
	for seed := range uint64(3) {
		var c Compiler
		w, again := newWorld(t, seed), newWorld(t, seed)
		before := c.Compile(w.s, w.options(&c), Changed{})
		after := c.Compile(again.s, w.options(&c), Changed{})
		if !slices.Equal(before.Table.Services, after.Table.Services) || !slices.Equal(before.Edge.Services, after.Edge.Services) ||
			!slices.Equal(before.Delivery.Services, after.Delivery.Services) {
			t.Error("the same documents made other pointers")
		}
		if all := c.Compile(again.s, w.options(&c), Changed{All: true}); !slices.Equal(all.Table.Services, after.Table.Services) {
			t.Error("the same once more made other pointers")
		}
	}
}

func TestEveryFieldOfADocumentIsCompared(t *testing.T) {
	full := api.Service{Health: &api.HealthCheck{}, Outlier: &api.Outlier{}, Edge: &api.Edge{}}
	kind := reflect.TypeFor[api.Service]()
	for i := range kind.NumField() {
		other := full
		f := reflect.ValueOf(&other).Elem().Field(i)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int64:
			f.SetInt(1)
		case reflect.Uint32:
			f.SetUint(1)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Pointer:
			f.SetZero()
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		default:
			t.Fatalf("%s is a %s: teach this test about it", kind.Field(i).Name, f.Kind())
		}
		if sameService(&full, &other) {
			t.Errorf("%s is not compared", kind.Field(i).Name)
		}
	}
	if n := reflect.TypeFor[api.Backend]().NumField(); n != 4 {
		t.Errorf("a backend has %d fields, and sameBackend compares 4", n)
	}
	if n := reflect.TypeFor[dataplane.Service]().NumField(); n != 10 {
		t.Errorf("a table has %d fields, and sameTable compares 10", n)
	}
	if n := reflect.TypeFor[dataplane.EdgeService]().NumField(); n != 10 {
		t.Errorf("an edge table has %d fields, and sameEdge compares 10", n)
	}
	one, two := 1, 1
	a := api.Service{Backends: []api.Backend{{Weight: &one}}}
	b := api.Service{Backends: []api.Backend{{Weight: &two}}}
	if !sameService(&a, &b) {
		t.Error("equal weights at two places are told apart")
	}
	if two = 2; sameService(&a, &b) {
		t.Error("two weights are taken for one")
	}
}

func TestServicesMayComeAndGoAltogether(t *testing.T) {
	w := newWorld(t, 1)
	var c Compiler
	for _, services := range [][]api.Service{nil, w.s.Services, nil, w.s.Services[:3], w.s.Services[3:6], nil} {
		s := *w.s
		s.Services = services
		got := c.Compile(&s, w.options(&c), Changed{})
		compareResults(t, fmt.Sprint(len(services)), got, new(Compiler).Compile(&s, w.options(&c), Changed{}))
		if len(services) == 0 && len(got.Table.Services)+len(got.Edge.Services)+len(got.Delivery.Services)+len(c.Bases()) > 0 {
			t.Errorf("without services: got %+v", got)
		}
	}
}

func TestTheSecondServiceOfANameIsSkipped(t *testing.T) {
	a, b := service(t, "web", []string{"192.0.2.1:80"}, "10.0.0.1:80"), service(t, "web", []string{"192.0.2.2:80"}, "10.0.0.2:80")
	var c Compiler
	s := snapshot(t, a, b)
	for range 2 {
		r := c.Compile(s, Options{}, Changed{})
		if len(r.Table.Services) != 1 || len(r.Skipped) != 1 || r.Skipped[0].Field != "name" || r.Table.Services[0].Backends[0].Address != a.Backends[0].Address {
			t.Errorf("got %+v and %+v", r.Table.Services, r.Skipped)
		}
		s = snapshot(t, service(t, "first", []string{"first:80"}), a, b) // all of them move
		s.Services = s.Services[1:]
	}
	if r := c.Compile(snapshot(t, b, a), Options{}, Changed{}); len(r.Table.Services) != 1 || r.Table.Services[0].Backends[0].Address != b.Backends[0].Address {
		t.Errorf("got %+v", r.Table.Services)
	}
}

// large is a fleet of services with backends each.
func large(services, backends int, balance api.Balance) *api.Snapshot {
	s := &api.Snapshot{Node: api.Node{Name: "a1"}, VIPs: map[string]api.VIPAddresses{}}
	for i := range services {
		name := fmt.Sprintf("s%05d", i)
		doc := api.Service{Name: name, VIPs: []api.VIP{{Name: name, Port: 80}}, Balance: balance}
		for j := range backends {
			a := netip.AddrFrom4([4]byte{10, byte(i % 250), byte(i / 250), byte(j)})
			doc.Backends = append(doc.Backends, api.Backend{Address: netip.AddrPortFrom(a, 8080)})
		}
		s.Services = append(s.Services, doc)
		s.VIPs[name+".default"] = api.VIPAddresses{V4: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}
	}
	return s
}

// withBackend is the next snapshot: it shares all but one service's backends.
func withBackend(s *api.Snapshot, i, weight int) *api.Snapshot {
	next := *s
	next.Services = slices.Clone(s.Services)
	backends := slices.Clone(next.Services[i].Backends)
	backends[3].Weight = &weight
	next.Services[i].Backends = backends
	return &next
}

func TestAChangeOfOneServiceTouchesNoOther(t *testing.T) {
	s := large(300, 10, "")
	var c Compiler
	before := c.Compile(s, Options{}, Changed{})
	after := c.Compile(withBackend(s, 77, 5), Options{}, Changed{})
	others := 0
	for i := range before.Table.Services {
		if before.Table.Services[i] != after.Table.Services[i] {
			others++
			if name := after.Table.Services[i].Name; name != "s00077.default/tcp/4" {
				t.Errorf("%s was made anew", name)
			}
		}
	}
	if others != 1 || before.Table.Services[77].Backends[3].Weight != 1 {
		t.Errorf("%d tables were made anew, want one beside the old one", others)
	}
}

func BenchmarkCompiler(b *testing.B) {
	for _, balance := range []api.Balance{api.Random, api.Maglev} {
		s := large(10000, 100, balance)
		if balance == api.Maglev { // 64 KiB each: that many would not fit
			s = large(10000, 100, api.Random)
			for i := range 50 {
				s.Services[i].Balance = api.Maglev
			}
		}
		var c Compiler
		c.Compile(s, Options{}, Changed{})
		b.Run(string(balance)+"/document", func(b *testing.B) {
			snapshots := [2]*api.Snapshot{withBackend(s, 7, 2), withBackend(s, 7, 3)}
			for i := range b.N {
				c.Compile(snapshots[i%2], Options{}, Changed{})
			}
		})
		c.Compile(s, Options{}, Changed{})
		down := netip.AddrPort{}
		o := Options{State: func(_ string, _ api.Protocol, a netip.AddrPort) (api.BackendState, string) {
			if a == down {
				return api.Down, "no answer"
			}
			return api.Up, ""
		}}
		b.Run(string(balance)+"/health", func(b *testing.B) {
			for i := range b.N {
				down = netip.AddrPort{}
				if i%2 == 0 {
					down = s.Services[7].Backends[3].Address
				}
				c.Compile(s, o, Changed{Services: []ServiceRef{{"s00007.default", api.TCP}}})
			}
		})
	}
	s := large(10000, 100, "")
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			Compile(s, Options{})
		}
	})
	var c Compiler
	c.Compile(s, Options{}, Changed{})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			c.Compile(s, Options{}, Changed{All: true})
		}
	})
}
