package api

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func randomSnapshot(r *rand.Rand, revision uint64) *Snapshot {
	s := &Snapshot{Revision: revision, Node: Node{Name: "a1", Draining: r.IntN(2) == 0}, VIPs: map[string]VIPAddresses{}}
	some := func(n int, do func(int)) {
		for i := range n {
			if r.IntN(3) > 0 {
				do(i)
			}
		}
	}
	some(6, func(i int) { s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("n%d", i), Draining: r.IntN(2) == 0}) })
	some(6, func(i int) {
		service := Service{Name: fmt.Sprintf("s%d", i), MaxConnections: uint32(r.IntN(2))}
		some(12, func(j int) {
			weight := 1 + r.IntN(2)
			service.Backends = append(service.Backends, Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j)}), 80), Weight: &weight})
		})
		s.Services = append(s.Services, service)
		s.VIPs[service.Key()] = VIPAddresses{V4: netip.AddrFrom4([4]byte{198, 18, byte(i), byte(r.IntN(2))})}
	})
	some(6, func(i int) {
		s.Records = append(s.Records, Record{Name: fmt.Sprintf("r%d", i), Type: "TXT", Data: []string{fmt.Sprint(r.IntN(2))}})
	})
	some(6, func(i int) { s.Tasks = append(s.Tasks, Task{ID: fmt.Sprintf("t%d", i), Node: fmt.Sprint(r.IntN(2))}) })
	some(6, func(i int) { s.Run = append(s.Run, TaskSpec{ID: fmt.Sprintf("t%d", i), Kill: r.IntN(2) == 0}) })
	some(3, func(i int) {
		s.Networks = append(s.Networks, ContainerNetwork{Name: fmt.Sprintf("w%d", i), VNI: uint32(r.IntN(2))})
		s.Subnets = append(s.Subnets, Subnet{Network: fmt.Sprintf("w%d", i), Node: "a1"})
	})
	if r.IntN(2) == 0 {
		s.Policy = &Policy{Zones: map[string]Zone{fmt.Sprint(r.IntN(2)): {}}}
	}
	return s
}

// sortBackends puts the backends in one order: a change appends new ones.
func sortBackends(s *Snapshot) {
	for i := range s.Services {
		b := slices.Clone(s.Services[i].Backends)
		slices.SortFunc(b, func(x, y Backend) int { return x.Address.Compare(y.Address) })
		s.Services[i].Backends = b
	}
}

func TestChangeMakesTheNextSnapshot(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		old, now := randomSnapshot(r, 7), randomSnapshot(r, 9)
		before := fmt.Sprintf("%+v", *old)
		c := now.Change(old)
		got, err := old.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprintf("%+v", *old) != before {
			t.Fatal("the old snapshot has changed")
		}
		sortBackends(got)
		for j := range now.Services {
			if len(now.Services[j].Backends) == 0 {
				now.Services[j].Backends = got.Services[j].Backends
			}
		}
		if again := got.Change(now); !again.Empty() || got.Revision != 9 {
			t.Fatalf("pair %d: still differs by %+v", i, again)
		}
		if same := now.Change(now); !same.Empty() {
			t.Fatalf("a snapshot differs from itself by %+v", same)
		}
	}
}

func TestChangeOfOneBackendHoldsOneBackend(t *testing.T) {
	service := Service{Name: "web"}
	for i := range 100 {
		service.Backends = append(service.Backends, Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)})
	}
	old := &Snapshot{Revision: 1, Services: []Service{service}}
	service.Backends = slices.Clone(service.Backends)
	service.Backends[3].State = Draining
	now := &Snapshot{Revision: 2, Services: []Service{service}}
	c := now.Change(old)
	want := []BackendChange{{Service: "web.default/tcp", Backend: service.Backends[3]}}
	if !reflect.DeepEqual(c.Backends, want) || len(c.Services) != 0 {
		t.Errorf("got %+v", c)
	}
}

func TestChangeOfAnotherRevisionIsRefused(t *testing.T) {
	if _, err := (&Snapshot{Revision: 3}).Apply(&SnapshotChange{From: 2, Revision: 4}); err == nil || !strings.Contains(err.Error(), "revision 2") {
		t.Errorf("got %v", err)
	}
	for _, c := range []BackendChange{{Service: "web.default/tcp"}, {Service: "web.default/tcp", Gone: true}} {
		if _, err := (&Snapshot{}).Apply(&SnapshotChange{Backends: []BackendChange{c}}); err == nil {
			t.Error("a backend of a service that is not there was taken")
		}
	}
}
