package edge

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
)

// backend sends the frame and tells which backend it is for.
func backend(t *testing.T, h hook, e *Edge, f frame) string {
	t.Helper()
	verdict, out := h.run(t, e, f.ethernet())
	if verdict != h.loop {
		return verdict
	}
	return openTunnel(t, out).backend.String()
}

// client is the i-th of many.
func client(i int) netip.AddrPort {
	return netip.AddrPortFrom(addr("203.0.113.9:0").Addr(), uint16(1024+i))
}

// eight makes a service of eight backends, 64 slots each.
func eight(protocol api.Protocol) *dataplane.EdgeService {
	s := service("web", protocol, "198.18.0.1:80")
	for i := range 8 {
		at := addr(fmt.Sprintf("10.80.0.%d:80", 11+i))
		s.Backends = append(s.Backends, dataplane.EdgeBackend{Address: at, Node: at.Addr(), State: api.Up})
	}
	for i := range 512 {
		s.Slots = append(s.Slots, uint32(i%8))
	}
	return s
}

// without makes the next service after backend i got the state: its slots go to
// the others. A slot that does not change keeps its previous backend.
func without(s *dataplane.EdgeService, i uint32, state api.BackendState) *dataplane.EdgeService {
	next := *s
	next.Backends, next.Slots, next.Previous = slices.Clone(s.Backends), slices.Clone(s.Slots), slices.Clone(s.Previous)
	next.Backends[i].State = state
	if next.Previous == nil {
		next.Previous = slices.Clone(s.Slots)
	}
	for at, index := range next.Slots {
		if index == i {
			next.Slots[at], next.Previous[at] = (i+1+uint32(at)%7)%8, index
		}
	}
	return &next
}

func TestEveryBackendGetsItsShareAndAFlowItsBackend(t *testing.T) {
	e := newEdge(t)
	set(t, e, table(eight(api.TCP)))
	h, seen := hooks["xdp"], map[string]int{}
	for i := range 4000 {
		f := frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn}
		first := backend(t, h, e, f)
		f.flags = ack
		if again := backend(t, hooks["tcx"], e, f); again != first {
			t.Fatalf("flow %d went to %s and then to %s", i, first, again)
		}
		seen[first]++
	}
	for b, n := range seen {
		if n < 400 || n > 600 {
			t.Errorf("backend %s got %d of 4000", b, n)
		}
	}
	if r := reasons(t, e); len(seen) != 8 || len(r) > 0 {
		t.Errorf("%d backends; reasons %v", len(seen), r)
	}
	c, err := e.Counters()
	if got := c.Services["web"]; err != nil || got.Packets != 8000 || got.Flows != 4000 || got.Bytes != 8000*40 || got.Refused != 0 {
		t.Errorf("counters %+v, %v", got, err)
	}
}

func TestFlowsOlderThanAChangeStay(t *testing.T) {
	e, h := newEdge(t), hooks["xdp"]
	before := eight(api.TCP)
	set(t, e, table(before))
	packet := func(i int, flags uint8) string {
		return backend(t, h, e, frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: tcp, flags: flags})
	}
	old := map[int]string{}
	for i := range 100 {
		old[i] = packet(i, syn)
	}
	set(t, e, table(without(before, 3, api.Draining)))
	fresh := map[int]string{}
	for i := 100; i < 200; i++ {
		if fresh[i] = packet(i, syn); fresh[i] == "10.80.0.14:80" {
			t.Errorf("flow %d began at the draining backend", i)
		}
	}
	for i := range 100 {
		if got := packet(i, ack); got != old[i] {
			t.Errorf("old flow %d went from %s to %s", i, old[i], got)
		}
		if got := packet(100+i, ack); got != fresh[100+i] {
			t.Errorf("new flow %d went from %s to %s", i, fresh[100+i], got)
		}
	}
	if reasons(t, e)["cached"] == 0 {
		t.Error("nothing was remembered")
	}
	// Another change: what was remembered still holds.
	set(t, e, table(without(without(before, 3, api.Draining), 5, api.Draining)))
	for i := range 100 {
		if got := packet(i, ack); got != old[i] {
			t.Errorf("after two changes flow %d went from %s to %s", i, old[i], got)
		}
	}
	// A backend that is down has no flows, and one that is gone even less.
	set(t, e, table(without(before, 3, api.Down)))
	for i := range 100 {
		if got := packet(i, ack); got == "10.80.0.14:80" || got != old[i] && old[i] != "10.80.0.14:80" {
			t.Errorf("with backend 3 down flow %d went from %s to %s", i, old[i], got)
		}
	}
}

func TestUDPFlowsSettleAfterAChange(t *testing.T) {
	o := testOptions(t, newBPFFS(t))
	o.Settle = 500 * time.Millisecond
	e, h := open(t, o), hooks["xdp"]
	before := eight(api.UDP)
	set(t, e, table(before))
	packet := func(i int) string {
		return backend(t, h, e, frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: udp})
	}
	old := map[int]string{}
	for i := range 100 {
		old[i] = packet(i)
	}
	changed := time.Now()
	set(t, e, table(without(before, 3, api.Draining)))
	for i := range 100 {
		if got := packet(i); got != old[i] && time.Since(changed) < o.Settle {
			t.Errorf("flow %d went from %s to %s", i, old[i], got)
		}
	}
	time.Sleep(time.Until(changed.Add(o.Settle + 50*time.Millisecond)))
	for i := 100; i < 200; i++ {
		if got := packet(i); got == "10.80.0.14:80" {
			t.Errorf("flow %d began at the draining backend", i)
		}
	}
}

func TestFragmentsFollowTheFirst(t *testing.T) {
	e := newEdge(t)
	s6 := service("six", api.UDP, "[fd77::1]:80", "[fd00::11]:80", "[fd00::12]:80", "[fd00::13]:80")
	set(t, e, table(s6, eight(api.UDP)))
	eachHook(t, func(t *testing.T, h hook) {
		for i := range 20 {
			id := uint32(len(h.loop)*1000 + i) // of this hook alone
			first := frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: udp, fragment: 0x2000, id: id, payload: make([]byte, 64)}
			later := first
			later.later, later.fragment = true, 9
			if got := backend(t, h, e, later); got != drop {
				t.Fatalf("a fragment without a first one: %s", got)
			}
			want := backend(t, h, e, first)
			if got := backend(t, h, e, later); got != want {
				t.Errorf("the first fragment went to %s, the next to %s", want, got)
			}
			first6 := frame{src: addr("[2001:db8::9]:4000"), dst: addr("[fd77::1]:80"), protocol: udp, isFragment: true, fragment: 1, id: id << 8, payload: make([]byte, 64)}
			later6 := first6
			later6.later, later6.fragment = true, 9<<3
			if got := backend(t, h, e, later6); got != drop {
				t.Fatalf("an IPv6 fragment without a first one: %s", got)
			}
			want = backend(t, h, e, first6)
			if got := backend(t, h, e, later6); got != want {
				t.Errorf("the first IPv6 fragment went to %s, the next to %s", want, got)
			}
		}
	})
	if r := reasons(t, e); r["fragment_lost"] != 80 {
		t.Errorf("reasons %v", r)
	}
}

func TestAnICMPErrorGoesToTheBackendOfItsFlow(t *testing.T) {
	e := newEdge(t)
	six := service("six", api.TCP, "[fd77::1]:80", "[fd00::11]:80", "[fd00::12]:80", "[fd00::13]:80")
	set(t, e, table(six, eight(api.TCP)))
	eachHook(t, func(t *testing.T, h hook) {
		for i := range 50 {
			for _, c := range []struct {
				vip, client, router string
				protocol, kind      uint8
			}{
				{"198.18.0.1:80", client(i).String(), "192.0.2.1:0", icmp4, 3},
				{"[fd77::1]:80", fmt.Sprintf("[2001:db8::9]:%d", 1024+i), "[2001:db8::1]:0", icmp6, 2},
			} {
				want := backend(t, h, e, frame{src: addr(c.client), dst: addr(c.vip), protocol: tcp})
				answer := frame{src: addr(c.vip), dst: addr(c.client), protocol: tcp}.ip()
				f := frame{src: addr(c.router), dst: addr(c.vip), protocol: c.protocol, icmpType: c.kind, icmpCode: 4 * (3 - c.kind) & 4, payload: answer[:len(answer)-12]}
				if got := backend(t, h, e, f); got != want {
					t.Errorf("flow of %s is at %s, its error went to %s", c.client, want, got)
				}
				// One that quotes another address's packet is nobody's.
				f.payload = frame{src: addr(c.client), dst: addr(c.vip), protocol: tcp}.ip()
				if got := backend(t, h, e, f); got != drop {
					t.Errorf("an error about somebody else's packet: %s", got)
				}
			}
		}
	})
}

func TestOnlyAllowedClientsAreServed(t *testing.T) {
	e := newEdge(t)
	s := service("web/tcp/4", api.TCP, "198.18.0.1:80", "10.80.0.11:80")
	s.Allow = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/29"), netip.MustParsePrefix("2001:db8::/32")}
	s6 := service("web/tcp/6", api.TCP, "[fd77::1]:80", "[fd00::11]:80")
	s6.Allow = s.Allow
	none := service("none", api.TCP, "198.18.0.2:80", "10.80.0.11:80")
	none.Allow = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}
	all := service("all", api.TCP, "198.18.0.3:80", "10.80.0.11:80")
	set(t, e, table(all, none, s, s6))
	check := func(want map[[2]string]bool) {
		t.Helper()
		eachHook(t, func(t *testing.T, h hook) {
			for c, allowed := range want {
				got := backend(t, h, e, frame{src: addr(c[0]), dst: addr(c[1]), protocol: tcp})
				if (got != drop) != allowed {
					t.Errorf("%s to %s: %s", c[0], c[1], got)
				}
			}
		})
	}
	check(map[[2]string]bool{
		{"203.0.113.7:1", "198.18.0.1:80"}: true, {"203.0.113.8:1", "198.18.0.1:80"}: false,
		{"[2001:db8::1]:1", "[fd77::1]:80"}: true, {"[2001:db9::1]:1", "[fd77::1]:80"}: false,
		{"203.0.113.7:1", "198.18.0.2:80"}: false, {"203.0.113.8:1", "198.18.0.3:80"}: true,
	})
	s.Allow = s.Allow[1:]
	s = &dataplane.EdgeService{Name: s.Name, Protocol: s.Protocol, Frontends: s.Frontends, Backends: s.Backends, Slots: s.Slots}
	set(t, e, table(all, s, s6))
	check(map[[2]string]bool{{"203.0.113.8:1", "198.18.0.1:80"}: true, {"[2001:db9::1]:1", "[fd77::1]:80"}: false})
}

func TestNewConnectionsBeyondTheRateAreShed(t *testing.T) {
	e, h := newEdge(t), hooks["xdp"]
	s := service("web", api.TCP, "198.18.0.1:80", "10.80.0.11:80")
	s.SYNRate = 10
	set(t, e, table(s))
	start, taken := time.Now(), 0
	for i := range 200 {
		if backend(t, h, e, frame{src: client(i), dst: addr("198.18.0.1:80"), protocol: tcp, flags: syn}) != drop {
			taken++
		}
	}
	// A burst of 8 and, in slow tests, what the rate lets in meanwhile.
	if limit := 10 + int(time.Since(start)/(100*time.Millisecond)); taken < 8 || taken > limit {
		t.Errorf("%d of 200 were let in, at most %d should be", taken, limit)
	}
	if got := backend(t, h, e, frame{src: client(0), dst: addr("198.18.0.1:80"), protocol: tcp}); got == drop {
		t.Error("a packet of an open connection was shed")
	}
	if r := reasons(t, e); r["syn_shed"] != uint64(200-taken) {
		t.Errorf("reasons %v", r)
	}
}

// quicLong makes a packet with a long header of QUIC version 1.
func quicLong(kind byte, id []byte) []byte {
	return append(append([]byte{0xc0 | kind<<4, 0, 0, 0, 1, byte(len(id))}, id...), make([]byte, 30)...)
}

func TestAQUICConnectionKeepsItsBackendWhenItsAddressChanges(t *testing.T) {
	for _, length := range []int{8, 4, 20} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			e := newEdge(t)
			s := eight(api.UDP)
			s.QUIC = true
			set(t, e, table(s))
			eachHook(t, func(t *testing.T, h hook) {
				for i := range 20 {
					id := make([]byte, length)
					binary.BigEndian.PutUint32(id, uint32(i+1)<<8|uint32(len(h.loop)))
					send := func(from netip.AddrPort, payload []byte) string {
						return backend(t, h, e, frame{src: from, dst: addr("198.18.0.1:80"), protocol: udp, payload: payload})
					}
					want := send(client(i), quicLong(0, []byte("clients1")))
					if got := send(client(i), quicLong(2, id)); got != want {
						t.Fatalf("the handshake went from %s to %s", want, got)
					}
					for move := range 10 {
						short := append(append([]byte{0x40}, id...), byte(move), 9, 9, 9, 9, 9, 9)
						if got := send(client(5000+100*i+move), short); got != want {
							t.Errorf("after moving, %s became %s", want, got)
						}
					}
				}
			})
			if c, _ := e.Counters(); c.Services["web"].Flows != 40 {
				t.Errorf("counters %+v", c.Services["web"])
			}
		})
	}
}
