package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/weirproject/weir/api"
)

func testKeeper(t *testing.T) *keeper {
	t.Helper()
	return newKeeper(filepath.Join(t.TempDir(), "wanted.log"), "cluster", "id", slog.New(slog.DiscardHandler))
}

// fleetOf is a snapshot with so many services of two backends.
func fleetOf(services int) *api.Snapshot {
	s := &api.Snapshot{Revision: 10, Node: api.Node{Name: "a1"}, Nodes: []api.Node{{Name: "a1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}}
	for i := range services {
		s.Services = append(s.Services, api.Service{
			Name: fmt.Sprintf("s%05d", i), VIPs: []api.VIP{{Addr: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Port: 80}},
			Backends: []api.Backend{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Node: "a1"}, {Address: netip.MustParseAddrPort("10.0.0.2:80"), Node: "a2"}},
		})
	}
	return s
}

// steps makes changes of one backend each, and the snapshot they lead to.
func steps(t *testing.T, s *api.Snapshot, n int) (changes []*api.SnapshotChange, last *api.Snapshot) {
	t.Helper()
	for i := range n {
		service := &s.Services[i%len(s.Services)]
		c := &api.SnapshotChange{From: s.Revision, Revision: s.Revision + 1, Backends: []api.BackendChange{{
			Service: api.ServiceKey(service), Backend: api.Backend{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 80)},
		}}}
		next, err := s.Apply(c)
		if err != nil {
			t.Fatal(err)
		}
		changes, s = append(changes, c), next
	}
	return changes, s
}

func TestTheWantedStateComesBackFromDiskWithItsChanges(t *testing.T) {
	k := testKeeper(t)
	if s, _, err := k.load(); s != nil || err != nil {
		t.Fatalf("without a file: got %v, %v", s, err)
	}
	first := fleetOf(200)
	k.put("e1", first, nil)
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	changes, last := steps(t, first, 10)
	for i, c := range changes {
		k.put("e1", last, c)
		if i%3 == 0 {
			if err := k.write(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	if k.tail == 0 {
		t.Error("the whole was written for a small change")
	}
	s, epoch, err := k.load()
	if err != nil || epoch != "e1" || !s.Equal(last) || s.Revision != last.Revision {
		t.Fatalf("got revision %d of %q, %v", s.Revision, epoch, err)
	}
	other := newKeeper(k.path, "other", "id", k.log)
	if s, _, err := other.load(); s != nil || err == nil {
		t.Errorf("another cluster's state was taken: %v", err)
	}
}

func TestWhatIsDamagedOnDiskIsFoundOutAtEveryByte(t *testing.T) {
	k := testKeeper(t)
	first := fleetOf(3)
	k.put("e1", first, nil)
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	changes, last := steps(t, first, 3)
	for _, c := range changes {
		k.put("e1", last, c)
	}
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(k.path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, i int, data []byte) {
		if err := os.WriteFile(k.path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := k.load()
		switch {
		case err == nil && s != nil && bytes.HasPrefix(whole, data) && (i == 0 || whole[i-1] == '\n'): // cut between records
		case err == nil:
			t.Errorf("%s %d: not found out", what, i)
		case s != nil && (s.Revision < first.Revision || s.Revision >= last.Revision):
			t.Errorf("%s %d: revision %d was made of it", what, i, s.Revision)
		}
	}
	for i := range whole {
		changed := slices.Clone(whole)
		changed[i] ^= 4
		check("changed byte", i, changed)
		check("cut at", i, whole[:i])
	}
}

func TestTheChangesOnDiskDoNotGrowForEver(t *testing.T) {
	k := testKeeper(t)
	s := fleetOf(2)
	k.put("e1", s, nil)
	if err := k.write(); err != nil {
		t.Fatal(err)
	}
	largest := int64(0)
	for range 40 {
		changes, last := steps(t, s, 500)
		for _, c := range changes {
			k.put("e1", last, c)
		}
		s = last
		if err := k.write(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(k.path)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size()-k.base)
	}
	if back, _, err := k.load(); err != nil || !back.Equal(s) {
		t.Errorf("after many changes: %v", err)
	}
	if largest > 2*leastTail+1<<18 {
		t.Errorf("the changes took %d bytes", largest)
	}
	// Too many at once: the whole instead.
	changes, last := steps(t, s, maxPending+2)
	for _, c := range changes {
		k.put("e2", last, c)
	}
	if err := k.write(); err != nil || k.tail != 0 {
		t.Errorf("got a tail of %d bytes, %v", k.tail, err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(k.path)); len(entries) != 1 {
		t.Errorf("temporary files are left: %v", entries)
	}
}
