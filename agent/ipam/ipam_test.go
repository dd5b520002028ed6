package ipam

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/weirproject/weir/api"
)

func attachment(id string, ports []api.TaskPort, addresses ...netip.Addr) api.Attachment {
	return api.Attachment{ID: id, Owner: "tasks", Interfaces: []api.AttachedInterface{{Network: "web", Name: "eth0", Addresses: addresses}}, Ports: ports}
}

func open(t *testing.T, dir string) *Book {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachAddressIsGivenOnceUntilItsSubnetIsFull(t *testing.T) {
	for text, room := range map[string]int{"10.0.0.0/29": 5, "fd00::/125": 6, "10.0.0.4/30": 1} {
		b := open(t, t.TempDir())
		subnet := netip.MustParsePrefix(text)
		gateway := subnet.Addr().Next()
		for i := range room {
			a, err := b.Pick(subnet, gateway)
			if err != nil {
				t.Fatalf("%s: address %d of %d: %v", subnet, i+1, room, err)
			}
			if err := b.Put(attachment(a.String(), nil, a)); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := b.Pick(subnet, gateway); !errors.Is(err, ErrFull) {
			t.Errorf("%s: one more is %s (%v), want ErrFull", subnet, a, err)
		}
		last := b.All()[room-1]
		if err := b.Remove(last.ID); err != nil {
			t.Fatal(err)
		}
		if a, err := b.Pick(subnet, gateway); err != nil || a != last.Addresses()[0] {
			t.Errorf("%s: after %s was returned: %s, %v", subnet, last.ID, a, err)
		}
	}
}

func TestAReturnedAddressIsNotUsedAgainAtOnce(t *testing.T) {
	b, subnet := open(t, t.TempDir()), netip.MustParsePrefix("10.0.0.0/24")
	first, _ := b.Pick(subnet, subnet.Addr().Next())
	second, err := b.Pick(subnet, subnet.Addr().Next())
	if err != nil || first == second {
		t.Errorf("%s follows %s (%v)", second, first, err)
	}
}

func TestTheBookOutlivesTheAgent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "networks")
	a := netip.MustParseAddr("10.0.0.2")
	if err := open(t, dir).Put(attachment("t1", []api.TaskPort{{Port: 80, HostPort: 8080}}, a)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new-1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err) // what a crash in the middle of a write leaves
	}
	b := open(t, dir)
	if got, found := b.Get("t1"); !found || got.Addresses()[0] != a {
		t.Errorf("after a restart: %v, %v", got, found)
	}
	if err := b.Put(attachment("t2", nil, a)); err == nil {
		t.Error("an address is given twice")
	}
	if err := b.Put(attachment("t2", []api.TaskPort{{Port: 81, HostPort: 8080, Protocol: api.TCP}})); err == nil {
		t.Error("a port is published twice")
	}
	if err := b.Put(attachment("t2", []api.TaskPort{{Port: 81, HostPort: 8080, Protocol: api.UDP}})); err != nil {
		t.Errorf("the same number of the other protocol: %v", err)
	}
}

func TestADamagedFileHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Put(attachment("t1", nil)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir)
	if _, found := b.Get("t1"); err == nil || !found {
		t.Errorf("found %v, error %v", found, err)
	}
}
