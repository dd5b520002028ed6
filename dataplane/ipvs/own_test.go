package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/balancertest"
)

// These run in the VM, after the promises: see TestIPVSInVM.

func web(frontend string) *dataplane.Service {
	s := &dataplane.Service{Name: "web.default/tcp/4", Protocol: api.TCP, Frontends: []netip.AddrPort{netip.MustParseAddrPort(frontend)}}
	for _, b := range []string{"10.80.0.11:8080", "10.80.0.12:8080", "10.80.0.13:8080"} {
		s.Backends = append(s.Backends, dataplane.Backend{Address: netip.MustParseAddrPort(b), Weight: 1, State: api.Up})
	}
	fillSlots(s)
	return s
}

func tableOf(services ...*dataplane.Service) dataplane.Table {
	return dataplane.Table{Ranges: balancertest.Ranges(), Services: services}
}

// openClean opens a balancer whose objects go with the test.
func openClean(t *testing.T) *Balancer {
	t.Helper()
	b := openForTest(t)
	t.Cleanup(func() {
		b.Close()
		if _, err := Cleanup(context.Background(), cleanupOptions()); err != nil {
			t.Errorf("Cleanup: %v", err)
		}
	})
	return b
}

func mustSet(t *testing.T, b *Balancer, services ...*dataplane.Service) dataplane.Changes {
	t.Helper()
	c, err := b.Set(t.Context(), tableOf(services...))
	if err != nil {
		t.Fatalf("Set: %v", err)
	}
	return c
}

// ask connects and gives what the server says.
func ask(t *testing.T, d net.Dialer, target string) string {
	t.Helper()
	d.Timeout = 10 * time.Second
	c, err := d.Dial("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "?")
	buffer := make([]byte, 200)
	n, err := c.Read(buffer)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	return string(buffer[:n])
}

func foreignStays(t *testing.T) {
	k := openKernel(t)
	theirs := virtual{At: netip.MustParseAddrPort("192.0.2.200:9999")}
	server := netip.MustParseAddrPort("10.80.0.11:8080")
	for _, s := range []step{
		{op: addService, at: theirs, service: &service{scheduler: "wlc"}},
		{op: addDestination, at: theirs, destination: server, weight: 5},
	} {
		if err := k.do(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { k.do(step{op: deleteService, at: theirs}) })
	b := openClean(t)
	mustSet(t, b, web("198.18.0.10:80"))
	_, err := b.Set(t.Context(), tableOf(web("192.0.2.200:9999")))
	var left *dataplane.LeftOut
	if !errors.As(err, &left) || !strings.Contains(err.Error(), "192.0.2.200:9999 that is not ours") {
		t.Errorf("Set of a VIP that others serve: got %v", err)
	}
	mustSet(t, b)
	if _, err := Cleanup(t.Context(), cleanupOptions()); err != nil {
		t.Fatal(err)
	}
	held, err := k.services()
	if s := held[theirs]; err != nil || len(held) != 1 || s == nil || s.scheduler != "wlc" || s.destinations[server] != 5 {
		t.Errorf("after Cleanup there is %v, %v; want the other's service as it was", held, err)
	}
}

func ownAddressRefused(t *testing.T) {
	b := openClean(t)
	other := web("198.18.0.10:80")
	other.Name = "other.default/tcp/4"
	_, err := b.Set(t.Context(), tableOf(other, web("10.80.0.1:9090")))
	var left *dataplane.LeftOut
	if !errors.As(err, &left) || len(left.Services) != 1 || !strings.Contains(err.Error(), "10.80.0.1 is the node's own address, on weir-far") {
		t.Errorf("a VIP at the node's own address: got %v", err)
	}
	if got := ask(t, net.Dialer{}, "198.18.0.10:80"); !strings.HasPrefix(got, "10.80.0.1") {
		t.Errorf("the other service: got %q", got)
	}
	before := left
	_, err = b.Set(t.Context(), dataplane.Table{Ranges: []netip.Prefix{netip.MustParsePrefix("10.80.0.0/16")}})
	if err == nil || errors.As(err, &before) || !strings.Contains(err.Error(), "10.80.0.1, on weir-far, is within the virtual ranges") {
		t.Errorf("a range with the node's own address: got %v", err)
	}
}

func crashLeft(t *testing.T) {
	k := openKernel(t)
	gone := virtual{At: netip.MustParseAddrPort("192.0.2.90:80")}
	if err := k.do(step{op: addService, at: gone, service: &service{scheduler: "rr", flags: svcMark}}); err != nil {
		t.Fatal(err)
	}
	if c := mustSet(t, openClean(t), web("198.18.0.10:80")); c.Removed != 1 {
		t.Errorf("got %+v, want one removed", c)
	}
	if held, err := k.services(); err != nil || held[gone] != nil {
		t.Errorf("the service is still there (%v)", err)
	}
}

// portForwarding forwards port 80 of all local addresses, as Docker does for a
// published port.
func portForwarding(t *testing.T) {
	daemon, err := net.Listen("tcp", "10.80.0.1:8099")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Close() })
	go func() {
		for {
			c, err := daemon.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "daemon")
			c.Close()
		}
	}()
	forward(t)
	if got := ask(t, net.Dialer{}, "10.80.0.1:80"); got != "daemon" {
		t.Fatalf("the forwarded port answers %q, so this proves nothing", got)
	}
	mustSet(t, openClean(t), web("198.18.0.10:80"))
	if got := ask(t, net.Dialer{}, "198.18.0.10:80"); !strings.HasPrefix(got, "10.80.0.1") {
		t.Errorf("the VIP answers %q", got)
	}
}

func forward(t *testing.T) {
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "forwarding", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{Table: table, Name: "output", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 80}},
		&expr.Immediate{Register: 1, Data: []byte{10, 80, 0, 1}},
		&expr.Immediate{Register: 2, Data: []byte{0x1f, 0xa3}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.DelTable(table)
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	})
}

func boundToVIP(t *testing.T) {
	mustSet(t, openClean(t), web("198.18.0.10:80"))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(198, 18, 0, 10)}}
	got := ask(t, d, "198.18.0.10:80")
	if _, client, _ := strings.Cut(got, " "); !strings.HasPrefix(client, "10.80.0.1:") {
		t.Errorf("the backend saw %s, want the node's address 10.80.0.1", client)
	}
}

func many(t *testing.T) {
	var services []*dataplane.Service
	for i := range 250 {
		s := web(fmt.Sprintf("198.18.0.%d:80", 1+i%250))
		s.Name = fmt.Sprintf("s%03d.default/tcp/4", i)
		s.Backends = nil
		for j := range 10 {
			s.Backends = append(s.Backends, dataplane.Backend{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 81, byte(i), byte(j)}), 80), Weight: 1, State: api.Up,
			})
		}
		s.Slots = nil
		fillSlots(s)
		services = append(services, s)
	}
	b := openClean(t)
	start := time.Now()
	if c := mustSet(t, b, services...); c.Written < 250*11 {
		t.Errorf("got %+v", c)
	}
	first := time.Since(start)
	start = time.Now()
	if c := mustSet(t, b, services...); c != (dataplane.Changes{}) {
		t.Errorf("the second Set: %+v", c)
	}
	second := time.Since(start)
	start = time.Now()
	held, err := openKernel(t).services()
	if err != nil || len(held) != 250 || len(held[virtual{At: services[7].Frontends[0]}].destinations) != 10 {
		t.Errorf("the kernel has %d services, %v", len(held), err)
	}
	t.Logf("250 services with 10 backends each: first Set %s, second %s, of which reading services %s (emulated)", first, second, time.Since(start))
}
