package vip

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// The values are what client_hash of bpf/client.h gives, compiled by clang.
func TestAClientHashesAsInTheKernel(t *testing.T) {
	for _, test := range []struct {
		client Client
		want   uint32
	}{
		{Client{Address: netip.MustParseAddr("10.80.0.11")}, 1330521878},
		{Client{Address: netip.MustParseAddr("::ffff:10.80.0.11")}, 1330521878},
		{Client{Address: netip.MustParseAddr("fd00:1:2:3::9")}, 935314863},
		{Client{Cookie: 4026}, 2822338959},
	} {
		if got := test.client.hash(); got != test.want {
			t.Errorf("%s: got %d, want %d", test.client, got, test.want)
		}
	}
}

func TestTraceTellsWhoServesAClient(t *testing.T) {
	web := service(t, "web", []string{"192.0.2.1:80"}, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	three := 3
	web.Backends[1].Weight = &three
	old := service(t, "old", []string{"192.0.2.2:80"})
	client := Client{Address: netip.MustParseAddr("10.80.0.11")}
	trace := func(web api.Service, vip string, protocol api.Protocol, c Client) api.VIPTrace {
		table := compile(t, snapshot(t, web, old), Options{Ranges: []netip.Prefix{range4}})
		return Trace(table, c, netip.MustParseAddrPort(vip), protocol)
	}
	check := func(got api.VIPTrace, backends int, first string, share float64, reason string) {
		t.Helper()
		if len(got.Backends) != backends || !strings.Contains(got.Reason, reason) {
			t.Errorf("got %+v, want %d backends since %s", got, backends, reason)
		}
		if backends > 0 && (got.Backends[0].Address.String() != first || got.Backends[0].Share != share) {
			t.Errorf("got %+v, want %s first with %.0f%%", got.Backends, first, share)
		}
	}
	check(trace(web, "192.0.2.1:80", api.TCP, client), 3, "10.0.0.2:80", 60, "any slot with the same chance")
	check(trace(web, "[::ffff:192.0.2.1]:80", api.TCP, client), 3, "10.0.0.2:80", 60, "any slot with the same chance")
	check(trace(web, "192.0.2.2:80", api.TCP, client), 0, "", 0, "refused at once")
	check(trace(web, "192.0.2.1:81", api.TCP, client), 0, "", 0, "refused: web.default/tcp/4 serves tcp 192.0.2.1:80, but nobody tcp 192.0.2.1:81")
	check(trace(web, "192.0.2.1:80", api.UDP, client), 0, "", 0, "but nobody udp")
	check(trace(web, "198.18.0.9:80", api.TCP, client), 0, "", 0, "in the range of named VIPs")
	check(trace(web, "203.0.113.1:80", api.TCP, client), 0, "", 0, "not ours")
	web.Balance = api.P2C
	web.Affinity = api.Duration(time.Minute)
	check(trace(web, "192.0.2.1:80", api.TCP, client), 3, "10.0.0.2:80", 60, "p2c: of two slots by chance, the one whose backend has fewer connections of this node open; but a client stays")
	web.Balance = api.Maglev
	got := trace(web, "192.0.2.1:80", api.TCP, client)
	slots := compile(t, snapshot(t, web), Options{}).Services[0].Slots
	slot := int(uint64(uint32(1330521878)) * uint64(len(slots)) >> 32)
	check(got, 1, web.Backends[slots[slot]].Address.String(), 100, "maglev")
	if got.Slot != slot || got.Slots != len(slots) || got.Client != "10.80.0.11" {
		t.Errorf("got %+v, want slot %d", got, slot)
	}
	web.AffinityBy = api.ByNamespace
	check(trace(web, "192.0.2.1:80", api.TCP, client), 0, "", 0, "give its cookie")
	if got := trace(web, "192.0.2.1:80", api.TCP, Client{Cookie: 1}); len(got.Backends) != 1 || got.Client != "network namespace 1" {
		t.Errorf("got %+v", got)
	}
}
