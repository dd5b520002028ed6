package dnsproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// inside is a table's names with all that is kept of them, sorted.
func inside(table *Table) []string {
	var all []string
	for e := range table.all() {
		line := fmt.Sprintf("%s children=%d wildcard=%v zone=%d/%d", readable(string(e.name())), e.children, e.wildcard, e.zone, e.apexLen)
		for _, set := range e.allSets() {
			line += fmt.Sprintf(" %d/%d/%d/%d", set.rtype, set.owner, set.shown, set.rank)
			for _, r := range e.allRecords()[set.first : set.first+set.count] {
				line += fmt.Sprintf(" %x*%d/%d/%d", e.body(&r), r.claims, r.rank, r.target)
			}
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// world makes random states of few names, so that they meet often.
type world struct {
	r        *rand.Rand
	services map[serviceKey]api.Service
	nodes    map[string]api.Node
	records  map[recordKey]api.Record
	tasks    map[string]Task
}

func (w *world) pick(list ...string) string { return list[w.r.IntN(len(list))] }

func (w *world) address() netip.Addr {
	if w.r.IntN(4) == 0 {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%x", 1+w.r.IntN(20)))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", 1+w.r.IntN(20)))
}

func (w *world) service() api.Service {
	s := api.Service{Name: w.pick("web", "db", "pay.eu"), Namespace: w.pick("shop", "default"), Protocol: api.Protocol(w.pick("tcp", "udp"))}
	if s.VIPs = vips("198.18.0.1:80"); w.r.IntN(2) == 0 {
		s.VIPs = vips(w.pick("web", "db", "other")+":80", "198.18.0.2:81")
	}
	for range w.r.IntN(4) {
		b := api.Backend{Address: netip.AddrPortFrom(w.address(), uint16(80+w.r.IntN(2)))}
		if !slices.ContainsFunc(s.Backends, func(o api.Backend) bool { return o.Address == b.Address }) {
			s.Backends = append(s.Backends, b)
		}
	}
	return s
}

func (w *world) task() Task {
	t := Task{ID: fmt.Sprint("t", w.r.IntN(12)), Node: "n1", NodeAddresses: addrs("10.0.0.1")}
	t.Path = [][]string{{"web"}, {"shop", "web"}, {"a.b"}, {"a-b"}, {"a_b"}, {"x", "A!B"}}[w.r.IntN(6)]
	t.Service = w.pick("", "", "kafka")
	if w.r.IntN(2) == 0 {
		t.Addresses = []netip.Addr{w.address()}
	}
	t.Ports = []TaskPort{{Name: w.pick("", "http"), Port: 80, HostPort: uint16(31000 * w.r.IntN(2))}}
	if w.r.IntN(4) == 0 {
		t.Down = "is starting"
	}
	return t
}

// change alters one thing, in the world and in a Change.
func (w *world) change(c *Change) {
	switch w.r.IntN(8) {
	case 0, 1:
		s := w.service()
		if w.services[keyOfService(&s)] = s; w.r.IntN(3) == 0 {
			delete(w.services, keyOfService(&s))
			c.GoneServices = append(c.GoneServices, s)
			c.Services = slices.DeleteFunc(c.Services, func(o api.Service) bool { return keyOfService(&o) == keyOfService(&s) })
			return
		}
		c.Services = append(c.Services, s)
	case 2:
		n := api.Node{Name: w.pick("n1", "n2", "c1"), Addresses: []netip.Addr{w.address()}, Role: w.pick("", api.RoleController)}
		w.nodes[n.Name] = n
		c.Nodes = append(c.Nodes, n)
	case 3:
		rec := api.Record{Name: w.pick("*.apps", "deep.in.apps", "x.y.z", "txt"), Type: api.RecordA, Data: []string{w.pick("10.9.0.1", "10.9.0.2")}}
		w.records[recordKey{rec.Name, rec.Type}] = rec
		c.Records = append(c.Records, rec)
	case 4:
		for key, rec := range w.records {
			delete(w.records, key)
			c.GoneRecords = append(c.GoneRecords, rec)
			c.Records = slices.DeleteFunc(c.Records, func(o api.Record) bool { return o.Name == rec.Name })
			break
		}
	case 5, 6:
		t := w.task()
		w.tasks[t.ID] = t
		c.Tasks = append(c.Tasks, t)
	case 7:
		for id := range w.tasks {
			delete(w.tasks, id)
			c.GoneTasks = append(c.GoneTasks, id)
			c.Tasks = slices.DeleteFunc(c.Tasks, func(o Task) bool { return o.ID == id })
			break
		}
	}
}

func (w *world) snapshot(revision uint64) (*api.Snapshot, []Task) {
	s := &api.Snapshot{Revision: revision, VIPs: map[string]api.VIPAddresses{"web.shop": {V4: netip.MustParseAddr("198.18.9.1")}}}
	var tasks []Task
	for _, n := range w.nodes {
		s.Nodes = append(s.Nodes, n)
	}
	for _, v := range w.services {
		s.Services = append(s.Services, v)
	}
	for _, r := range w.records {
		s.Records = append(s.Records, r)
	}
	for _, t := range w.tasks {
		tasks = append(tasks, t)
	}
	return s, tasks
}

// A table that followed from changes is the one that a whole compilation makes.
func TestChangesMakeTheSameTable(t *testing.T) {
	for seed := range uint64(4) {
		w := &world{r: rand.New(rand.NewPCG(seed, 1)), services: map[serviceKey]api.Service{}, nodes: map[string]api.Node{}, records: map[recordKey]api.Record{}, tasks: map[string]Task{}}
		o := options()
		o.DCOS = seed%2 == 0
		first, _ := w.snapshot(1)
		byChange, bySnapshot := compile(t, first, o), compile(t, first, o)
		for step := range 120 {
			var c Change
			for range 1 + w.r.IntN(3) {
				w.change(&c)
			}
			c.Revision = uint64(step) + 2
			s, tasks := w.snapshot(c.Revision)
			o.Tasks, o.Previous = tasks, nil
			whole := compile(t, s, o)
			var err error
			if byChange, err = byChange.Apply(c); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			o.Previous = bySnapshot
			bySnapshot = compile(t, s, o)
			if bySnapshot.source != o.Previous.source {
				t.Fatalf("seed %d, step %d: the table was made anew", seed, step)
			}
			want := inside(whole)
			for what, got := range map[string][]string{"change": inside(byChange), "snapshot": inside(bySnapshot)} {
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, step %d, by %s: got\n%s\nwant\n%s", seed, step, what, differing(got, want), differing(want, got))
				}
			}
			if byChange.names != whole.names || byChange.entries != whole.entries {
				t.Fatalf("%d names of %d, want %d of %d", byChange.names, byChange.entries, whole.names, whole.entries)
			}
			if got, want := byChange.Notices(), whole.Notices(); !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: notices %v, want %v", seed, step, got, want)
			}
		}
	}
}

func differing(a, b []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) }), "\n")
}

func TestSerialMovesWithTheAnswers(t *testing.T) {
	o := options()
	isUp := true
	o.Up = func(api.Service, api.Backend) bool { return isUp }
	first := compile(t, fleet(), o)
	if first.Serial() != 41 {
		t.Fatalf("the first serial is %d, want the revision", first.Serial())
	}
	next := func(s *api.Snapshot) *Table {
		o.Previous = first
		first = compile(t, s, o)
		return first
	}
	s := fleet()
	if s.Revision = 42; next(s).Serial() != 41 {
		t.Errorf("serial %d after a revision that changes nothing", first.Serial())
	}
	if isUp = false; next(s).Serial() != 42 {
		t.Errorf("serial %d after backends went down, want 42", first.Serial())
	}
	if isUp = true; next(s).Serial() != 43 {
		t.Errorf("serial %d after they came back, want 43", first.Serial())
	}
	m := ask(t, proxyOf(t, first), "weir.internal.", dns.TypeSOA)
	if got := m.Answer[0].(*dns.SOA).Serial; got != 43 {
		t.Errorf("the SOA's serial is %d", got)
	}
	if o.Domain = "other.internal"; next(s).Serial() <= 43 {
		t.Errorf("serial %d for another table", first.Serial())
	}
	o.Previous, o.Serial = nil, 1_700_000_000
	if got := compile(t, s, o).Serial(); got != 1_700_000_000 {
		t.Errorf("serial %d, want what it shall begin with", got)
	}
}

func TestOnlyTheNewestTableIsFollowed(t *testing.T) {
	first := compile(t, fleet(), options())
	second, err := first.Apply(Change{Revision: 42, Records: []api.Record{{Name: "new", Type: api.RecordA, Data: []string{"10.1.1.1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Apply(Change{}); !errors.Is(err, errNotNewest) {
		t.Errorf("an old table: got %v", err)
	}
	bad := Change{Records: []api.Record{{Name: "new", Type: api.RecordCNAME, Data: []string{"dir"}}}}
	if _, err := second.Apply(bad); err == nil || !strings.Contains(err.Error(), "record new (CNAME): a CNAME has its name for itself, but new.weir.internal has A records of record new (A) too") {
		t.Errorf("a conflict: got %v", err)
	}
	if m := ask(t, proxyOf(t, second), "new.mesos.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("the table before it: got %v", m)
	}
	if _, err := second.Apply(Change{}); err == nil {
		t.Error("the line goes on after an error")
	}
	o := options()
	o.Previous = second
	if third := compile(t, fleet(), o); third.Serial() <= second.Serial() {
		t.Errorf("serial %d after %d", third.Serial(), second.Serial())
	}
}

// many is a state of 100,000 names with an A and an SRV each.
func many(n int) *api.Snapshot {
	s := &api.Snapshot{Revision: 1, Records: make([]api.Record, 0, 2*n)}
	for i := range n {
		name := fmt.Sprintf("host%d.rack%d", i, i%100)
		s.Records = append(s.Records,
			api.Record{Name: name, Type: api.RecordA, Data: []string{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()}},
			api.Record{Name: "_http._tcp." + name, Type: api.RecordSRV, Data: []string{"0 1 80 " + name}})
	}
	return s
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryOfManyNames(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	before := heap()
	s := many(100_000)
	documents := heap() - before
	started := time.Now()
	table := compile(t, s, Options{Domain: "weir.internal"})
	took := time.Since(started)
	whole := heap() - before
	const mib = 1 << 20
	t.Logf("%d names, %d entries in %d shards: documents %d MiB, all together %d MiB, compiled in %v", table.Len(), table.entries, table.shards, documents/mib, whole/mib, took)
	if whole-documents > 64*mib {
		t.Errorf("%d MiB beside the documents, want at most 64", (whole-documents)/mib)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(table)
}

// BenchmarkChange is a change of one service and one task in 100,000 names.
func BenchmarkChange(b *testing.B) {
	s := many(50_000)
	for i := range 200 {
		s.Services = append(s.Services, api.Service{Name: fmt.Sprint("web", i), Namespace: "shop", VIPs: vips(fmt.Sprintf("198.18.1.%d:80", i)), Backends: []api.Backend{backend("10.80.0.11:8080"), backend("10.80.0.12:8080")}})
	}
	table := compile(b, s, options())
	b.Run("service", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			one := s.Services[i%200]
			one.Backends = []api.Backend{backend("10.80.0.11:8080"), backend(fmt.Sprintf("10.80.1.%d:8080", i%250))}
			var err error
			if table, err = table.Apply(Change{Revision: uint64(i), Services: []api.Service{one}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("task", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			one := Task{ID: fmt.Sprint("t", i%1000), Path: []string{"shop", fmt.Sprint("app", i%100)}, Node: "n1", NodeAddresses: addrs("10.0.0.1"), Addresses: addrs(fmt.Sprintf("10.81.%d.%d", i/250%250, i%250)), Ports: []TaskPort{{Name: "http", Port: 80, HostPort: 31000}}}
			var err error
			if table, err = table.Apply(Change{Revision: uint64(i), Tasks: []Task{one}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// While tables change as fast as they can, every answer is the newest or newer
// than when it was asked for, and whole.
func TestAnswersWhileTablesChange(t *testing.T) {
	s := many(2000)
	s.Services = []api.Service{{Name: "web", Namespace: "shop", VIPs: vips("198.18.1.1:80")}}
	table := compile(t, s, options())
	p := proxyOf(t, table)
	var version atomic.Uint32
	set := func(v uint32) {
		one := s.Services[0]
		for i := range 3 {
			a := netip.AddrFrom4([4]byte{10, byte(v >> 8), byte(v), byte(i)})
			one.Backends = append(one.Backends, api.Backend{Address: netip.AddrPortFrom(a, 80)})
		}
		var err error
		if table, err = table.Apply(Change{Revision: uint64(v), Services: []api.Service{one}}); err != nil {
			t.Fatal(err)
		}
		p.Set(table)
		version.Store(v)
	}
	set(1)
	packet, _ := new(dns.Msg).SetQuestion("_web._tcp.shop.mesos.", dns.TypeSRV).Pack()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			w, out := workerOf(p), make([]byte, udpSize)
			for {
				select {
				case <-done:
					return
				default:
				}
				least := version.Load()
				n, _ := w.serve(packet, out, 0)
				m := new(dns.Msg)
				if err := m.Unpack(out[:n]); err != nil || len(m.Answer) != 3 || len(m.Extra) != 3 {
					t.Errorf("got %v, %v", m, err)
					return
				}
				for _, rr := range m.Extra {
					a := rr.(*dns.A).A.To4()
					if got := uint32(a[1])<<8 | uint32(a[2]); got < least {
						t.Errorf("an answer of version %d, after %d was set", got, least)
						return
					}
				}
			}
		})
	}
	for v := uint32(2); v < 1000; v++ {
		set(v)
	}
	close(done)
	wg.Wait()
}
