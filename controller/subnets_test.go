package controller

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/hub"
	"github.com/weirproject/weir/controller/store"
)

func TestNodesGetTheirSubnetsAndGiveThemBack(t *testing.T) {
	s := newSite(t)
	write := func(key string, value any) {
		t.Helper()
		ops := []store.Op{{Key: key, Delete: value == nil}, {Key: hub.GateKey, Value: []byte("test")}}
		if value != nil {
			ops[0].Value, _ = json.Marshal(value)
		}
		if _, err := s.member.Store.Commit(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	subnets := func(want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			got = ""
			seen := map[netip.Prefix]bool{}
			for _, one := range s.c.hub.State().Shared.Subnets {
				got += one.Network + "/" + one.Node + " "
				if seen[one.V4] || one.V4.Bits() != 24 {
					t.Fatalf("%+v has a subnet that another has, or of another length", one)
				}
				seen[one.V4] = true
			}
			if got == want {
				return
			}
		}
		t.Fatalf("got subnets %s, want %s", got, want)
	}
	for _, n := range []string{"a1", "a2"} {
		write(hub.NodeKey(n), hub.NodeEntry{ID: n, Node: api.Node{Name: n, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}})
	}
	write(hub.ObjectKey("network", "apps"), api.ContainerNetwork{Name: "apps", Range: netip.MustParsePrefix("10.128.0.0/23")})
	subnets("apps/a1 apps/a2 ")
	write(hub.NodeKey("a1"), nil)
	subnets("apps/a2 ")
	write(hub.ObjectKey("network", "apps"), nil)
	subnets("")
}
