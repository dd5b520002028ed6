package link

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func (h *host) hops() *Hops {
	h.t.Helper()
	var hops *Hops
	h.do(func() {
		var err error
		hops, err = NewHops(HopsOptions{})
		must(h.t, err)
	})
	h.run(hops.Run)
	return hops
}

// becomes waits, by Changes, until the next hop of the address is as wanted.
func becomes(t *testing.T, hops *Hops, addr string, ok func(Hop, error) bool) Hop {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		hop, err := hops.NextHop(netip.MustParseAddr(addr))
		if ok(hop, err) {
			return hop
		}
		select {
		case <-hops.Changes():
		case <-limit:
			t.Fatalf("next hop of %s stays %+v, %v", addr, hop, err)
		}
	}
}

func at(mac MAC) func(Hop, error) bool {
	return func(h Hop, err error) bool { return err == nil && h.Destination == mac }
}

func fails(with error) func(Hop, error) bool {
	return func(_ Hop, err error) bool { return errors.Is(err, with) }
}

func TestNextHopIsResolvedAndFollowsTheMAC(t *testing.T) {
	hosts := newSegment(t, 2)
	node, peer := hosts[0], hosts[1]
	hops := node.hops()
	for _, addr := range []string{"10.80.0.2", "fd00::2"} {
		if _, err := hops.NextHop(netip.MustParseAddr(addr)); !errors.Is(err, ErrUnresolved) {
			t.Errorf("first NextHop(%s) = %v, want %v", addr, err, ErrUnresolved)
		}
		hop := becomes(t, hops, addr, at(peer.mac))
		if hop.Source != node.mac || hop.MTU != 1500 || hop.Interface == 0 {
			t.Errorf("NextHop(%s) = %+v", addr, hop)
		}
	}
	moved := MAC{2, 0, 0, 0, 0, 0x77}
	peer.ip("link", "set", "eth0", "address", moved.String())
	for _, addr := range []string{"10.80.0.2", "fd00::2"} {
		// As the peer does where arp_notify and ndisc_notify are set.
		peer.do(func() {
			a, err := NewAnnouncer(AnnounceOptions{Interface: "eth0"})
			must(t, err)
			defer a.Close()
			if ip := netip.MustParseAddr(addr); ip.Is4() {
				a.send(arpAnnouncements(ip, moved)...)
			} else {
				a.send(ndpAnnouncement(ip, moved))
			}
		})
		becomes(t, hops, addr, at(moved))
	}
}

func TestNextHopFollowsRoutesAndInterfaces(t *testing.T) {
	hosts := newSegment(t, 3)
	node, one, two := hosts[0], hosts[1], hosts[2]
	hops := node.hops()
	for _, c := range []struct{ to, one, two string }{
		{"192.0.2.7", "10.80.0.2", "10.80.0.3"},
		{"2001:db8::7", "fd00::2", "fd00::3"},
	} {
		becomes(t, hops, c.to, fails(ErrNoRoute))
		node.ip("route", "add", c.to, "via", c.one)
		becomes(t, hops, c.to, at(one.mac))
		node.ip("route", "change", c.to, "via", c.two, "mtu", "1400")
		if hop := becomes(t, hops, c.to, at(two.mac)); hop.MTU != 1400 {
			t.Errorf("MTU %d, want the route's 1400", hop.MTU)
		}
		node.ip("route", "change", "blackhole", c.to)
		becomes(t, hops, c.to, fails(ErrNoRoute))
		node.ip("route", "del", "blackhole", c.to)
	}
	becomes(t, hops, "10.80.0.2", at(one.mac))
	node.ip("link", "set", "eth0", "mtu", "1300")
	becomes(t, hops, "10.80.0.2", func(h Hop, err error) bool { return err == nil && h.MTU == 1300 })
	node.ip("link", "set", "eth0", "down")
	becomes(t, hops, "10.80.0.2", fails(ErrNoRoute))
}

func TestNextHopByAnotherFamily(t *testing.T) {
	hosts := newSegment(t, 2)
	hops := hosts[0].hops()
	hosts[0].ip("route", "add", "192.0.2.7", "via", "inet6", "fd00::2", "dev", "eth0")
	becomes(t, hops, "192.0.2.7", at(hosts[1].mac))
}

func TestNextHopNamesWhatItCannotUse(t *testing.T) {
	node := newSegment(t, 1)[0]
	hops := node.hops()
	for addr, want := range map[string]error{
		"10.80.0.1": ErrLocal, "127.0.0.1": ErrLocal, "fd00::1": ErrLocal, "::ffff:10.80.0.1": ErrLocal,
		"203.0.113.1": ErrNoRoute, "10.80.0.99": ErrUnresolved,
	} {
		becomes(t, hops, addr, fails(want)) // a new address has its route a little later
		if hop, err := hops.NextHop(netip.MustParseAddr(addr)); !errors.Is(err, want) || hop != (Hop{}) || !strings.Contains(err.Error(), strings.TrimPrefix(addr, "::ffff:")) {
			t.Errorf("NextHop(%s) = %+v, %v, want %v", addr, hop, err, want)
		}
	}
	node.ip("tuntap", "add", "tun0", "mode", "tun")
	node.ip("link", "set", "tun0", "up")
	node.ip("route", "add", "198.51.100.0/24", "dev", "tun0")
	becomes(t, hops, "198.51.100.1", func(_ Hop, err error) bool { return errors.Is(err, ErrNotEthernet) })
	hops.Keep([]netip.Addr{netip.MustParseAddr("::ffff:10.80.0.99"), netip.MustParseAddr("10.80.0.98")})
	if got := hops.Known(); len(got) != 1 || got[0].String() != "10.80.0.99" {
		t.Errorf("Known() = %v after Keep", got)
	}
}

func TestHostThatAppearsLaterIsFound(t *testing.T) {
	hosts := newSegment(t, 2)
	hops := hosts[0].hops()
	becomes(t, hops, "10.80.0.50", fails(ErrUnresolved))
	time.Sleep(100 * time.Millisecond)
	hosts[1].ip("addr", "add", "10.80.0.50/24", "dev", "eth0")
	becomes(t, hops, "10.80.0.50", at(hosts[1].mac))
}

func TestStrayPacketsAreNotSent(t *testing.T) {
	hosts := newSegment(t, 2)
	hops := hosts[0].hops()
	becomes(t, hops, "10.80.0.2", at(hosts[1].mac))
	becomes(t, hops, "fd00::2", at(hosts[1].mac))
	hosts[1].do(func() {
		for _, file := range []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"} {
			if n := received(t, file); n != 0 {
				t.Errorf("%s: %d UDP packets came with the questions", file, n)
			}
		}
	})
}

// received is the number of UDP datagrams that a host's counters tell of.
func received(t *testing.T, file string) (n int) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "Udp:" && fields[0] != "Udp6InDatagrams" && fields[0] != "Udp6NoPorts" {
			continue
		}
		for _, f := range fields[1:min(3, len(fields))] { // InDatagrams and NoPorts come first
			if count, err := strconv.Atoi(f); err == nil {
				n += count
			}
		}
	}
	return n
}
