package vip

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

func named(t *testing.T, names ...string) []api.Service {
	t.Helper()
	var all []api.Service
	for _, name := range names {
		all = append(all, service(t, name, []string{strings.Split(name, ".")[0] + ":80"}))
	}
	return all
}

func allot(t *testing.T, old map[string]api.VIPAddresses, services []api.Service, r4, r6 netip.Prefix) map[string]api.VIPAddresses {
	t.Helper()
	got, err := Allot(old, services, r4, r6)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]string{}
	for name, a := range got {
		for _, address := range []netip.Addr{a.V4, a.V6} {
			if !address.IsValid() {
				continue
			}
			if other, taken := seen[address]; taken {
				t.Errorf("%s and %s share %s", name, other, address)
			}
			seen[address] = name
			if r := map[bool]netip.Prefix{true: r4, false: r6}[address.Is4()]; !isHost(address, r) {
				t.Errorf("%s has %s, which is no host of %s", name, address, r)
			}
		}
	}
	return got
}

func TestPortsOfANameShareOneAddressInBothFamilies(t *testing.T) {
	services := []api.Service{
		service(t, "web.shop", []string{"web:80", "web:443"}), service(t, "admin.shop", []string{"web:8080"}),
		service(t, "web.other", []string{"web:80"}),
	}
	got := allot(t, nil, services, range4, range6)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, []string{"web.other", "web.shop"}) {
		t.Errorf("got names %v", names)
	}
	if a := got["web.shop"]; !a.V4.Is4() || !a.V6.Is6() {
		t.Errorf("got %+v, want both families", a)
	}
	only4 := allot(t, nil, services, range4, netip.Prefix{})
	if a := only4["web.shop"]; a.V4 != got["web.shop"].V4 || a.V6.IsValid() {
		t.Errorf("without an IPv6 range: got %+v", a)
	}
}

func TestAFreshNodeArrivesAtTheSameAddresses(t *testing.T) {
	r4 := netip.MustParsePrefix("198.18.0.0/22") // crowded, so that hashes collide
	var services []api.Service
	for i := range 900 {
		services = append(services, named(t, fmt.Sprintf("s%d.ns%d", i, i%7))...)
	}
	want := allot(t, nil, services, r4, range6)
	slices.Reverse(services)
	if got := allot(t, nil, services, r4, range6); !maps.Equal(got, want) {
		t.Error("the order of the services changed the addresses")
	}
}

func TestAllottedAddressesStay(t *testing.T) {
	r4 := netip.MustParsePrefix("198.18.0.0/25")
	var services []api.Service
	held := map[string]api.VIPAddresses{}
	for i := range 126 { // the last one fills the range
		services = append(services, named(t, fmt.Sprintf("s%d", i))...)
		next := allot(t, held, services, r4, range6)
		for name, a := range held {
			if next[name] != a {
				t.Fatalf("%s moved from %v to %v when s%d came", name, a, next[name], i)
			}
		}
		held = next
	}
	if same := allot(t, held, services, r4, range6); reflect.ValueOf(same).Pointer() != reflect.ValueOf(held).Pointer() {
		t.Error("another map though nothing changed")
	}
	gone := allot(t, held, services[1:], r4, range6)
	if _, there := gone["s0.default"]; there || len(gone) != 125 {
		t.Errorf("%d names have addresses after one went, want 125", len(gone))
	}
	if back := allot(t, gone, services, r4, range6); !maps.Equal(back, held) {
		t.Error("a name that came back got another address though its own was free")
	}
}

func TestATinyRangeIsFilledAndThenFullWithTheNameInTheError(t *testing.T) {
	r4 := netip.MustParsePrefix("192.0.2.4/30")
	got := allot(t, nil, named(t, "a", "b"), r4, netip.Prefix{})
	addresses := []string{got["a.default"].V4.String(), got["b.default"].V4.String()}
	slices.Sort(addresses)
	if !slices.Equal(addresses, []string{"192.0.2.5", "192.0.2.6"}) {
		t.Errorf("got %v", addresses)
	}
	for _, test := range []struct{ range4, range6, want string }{
		{"192.0.2.4/30", "", "full: no address is left for the VIP c.default"},
		{"192.0.2.4/31", "", "too small for named VIPs such as a.default"},
		{"192.0.2.4/32", "", "too small"},
		{"", "fd00::/126", "full: no address is left for the VIP c.default"},
	} {
		var r4, r6 netip.Prefix
		if test.range4 != "" {
			r4 = netip.MustParsePrefix(test.range4)
		} else {
			r6 = netip.MustParsePrefix(test.range6)
		}
		if _, err := Allot(nil, named(t, "c", "b", "a"), r4, r6); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v", test, err)
		}
	}
}

func TestLiteralVIPsAreNotAllotted(t *testing.T) {
	r4 := netip.MustParsePrefix("192.0.2.0/29")
	services := append(named(t, "a", "b", "c"), service(t, "x", []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"}))
	got := allot(t, nil, services, r4, netip.Prefix{})
	for name, a := range got {
		if a.V4.Compare(netip.MustParseAddr("192.0.2.3")) <= 0 {
			t.Errorf("%s got the literal VIP %s", name, a.V4)
		}
	}
	// A literal VIP that comes later takes the address over; the others stay.
	moved := got["a.default"].V4
	services[3] = service(t, "x", []string{moved.String() + ":80"})
	after := allot(t, got, services, r4, netip.Prefix{})
	if after["a.default"].V4 == moved || after["b.default"] != got["b.default"] || after["c.default"] != got["c.default"] {
		t.Errorf("got %v, before %v, literal %s", after, got, moved)
	}
}

func TestAddressesOutsideANewRangeAreReplaced(t *testing.T) {
	old := map[string]api.VIPAddresses{
		"a.default": {V4: netip.MustParseAddr("198.18.0.7"), V6: netip.MustParseAddr("fd00::7")},
		"b.default": {V4: netip.MustParseAddr("192.0.2.0")}, // the new range's first
		"c.default": {V4: netip.MustParseAddr("192.0.2.9")},
		"d.default": {V4: netip.MustParseAddr("192.0.2.9")}, // a damaged file
	}
	got := allot(t, old, named(t, "a", "b", "c", "d"), netip.MustParsePrefix("192.0.2.0/24"), range6)
	if got["c.default"].V4 != old["c.default"].V4 {
		t.Errorf("c moved to %s", got["c.default"].V4)
	}
}

func TestWideRangesAreUsed(t *testing.T) {
	got := allot(t, nil, named(t, "a", "b"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"))
	if got["a.default"].V6 == got["b.default"].V6 {
		t.Errorf("got %v", got)
	}
	all := allot(t, nil, named(t, "a"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	if !all["a.default"].V4.IsValid() || !all["a.default"].V6.IsValid() {
		t.Errorf("got %v", all)
	}
}
