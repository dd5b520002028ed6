package deliver

import (
	"net/netip"
	"testing"
)

func TestNATGoesToTheBackendAndBack(t *testing.T) {
	r := newNAT(t)
	for _, f := range natFamilies {
		for _, base := range []packet{
			{protocol: tcp, flags: syn, options: []byte{2, 4, 5, 180}},
			{protocol: tcp, flags: ack, payload: bytesOf(1001)},
			{protocol: udp, payload: bytesOf(33)},
			{protocol: udp},
			{protocol: udp, payload: bytesOf(10), noSum: true},
		} {
			in := base
			in.from, in.to = f.client, f.vip
			word, out := r.forward(f.backend, in.frame())
			port := sourcePort(out)
			if port < 50000 {
				t.Errorf("%s: the port %d is not of the range", f.name, port)
			}
			own := netip.AddrPortFrom(f.own, port)
			want := base
			want.from, want.to = own, f.backend
			expect(t, f.name+" forward", word, out, xdpTX, want.frame())
			if _, again := r.forward(f.backend, in.frame()); sourcePort(again) != port {
				t.Errorf("%s: the port changed from %d to %d", f.name, port, sourcePort(again))
			}
			answer, wanted := base, base
			answer.from, answer.to = f.backend, own
			wanted.from, wanted.to = f.vip, f.client
			word, out = r.reply(answer.frame())
			expect(t, f.name+" reply", word, out, xdpTX, wanted.frame())
		}
	}
	if n := r.counted(NatNatResultNAT_ALLOCATED); n != 4 {
		t.Errorf("%d ports were given out, want 4: for TCP and UDP of each family", n)
	}
}

func TestNATKeepsFlowsApart(t *testing.T) {
	r := newNAT(t)
	type flow struct{ client, vip, backend netip.AddrPort }
	ports := map[uint16]flow{}
	for i := range 500 {
		f := flow{netip.AddrPortFrom(cli4.Addr(), uint16(1000+i)), vip4, outside4}
		_, out := r.forward(f.backend, packet{from: f.client, to: f.vip, protocol: udp}.frame())
		port := sourcePort(out)
		if other, taken := ports[port]; taken {
			t.Fatalf("%v and %v share the port %d", f, other, port)
		}
		ports[port] = f
	}
	for port, f := range ports {
		word, out := r.reply(packet{from: f.backend, to: netip.AddrPortFrom(own4, port), protocol: udp}.frame())
		expect(t, "reply", word, out, xdpTX, packet{from: f.vip, to: f.client, protocol: udp}.frame())
	}
	// The same client by another VIP, and at another backend, is another flow.
	_, out := r.forward(outside4, packet{from: cli4, to: ap("198.18.0.77:80"), protocol: udp}.frame())
	if f, taken := ports[sourcePort(out)]; taken {
		t.Errorf("another VIP shares a port with %v", f)
	}
}

func TestNATWithoutAFreePortDropsAndCounts(t *testing.T) {
	for _, size := range []uint16{1, 5, 40} {
		r := newNAT(t)
		r.config(60000, size)
		served := 0
		for i := range 200 {
			p := packet{from: netip.AddrPortFrom(cli4.Addr(), uint16(1000+i)), to: vip4, protocol: tcp, flags: syn}
			word, out := r.forward(outside4, p.frame())
			if word == xdpTX {
				served++
				if port := sourcePort(out); port < 60000 || port >= 60000+size {
					t.Fatalf("the port %d is not of the range", port)
				}
			}
		}
		if served != int(size) {
			t.Errorf("%d flows got a port, want %d", served, size)
		}
		if n := r.counted(NatNatResultNAT_EXHAUSTED); n != uint64(200-served) {
			t.Errorf("%d were counted as without a port, want %d", n, 200-served)
		}
		// Another backend has all ports free.
		if word, _ := r.forward(ap("10.90.0.6:8080"), packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.frame()); word != xdpTX {
			t.Error("another backend got no port")
		}
	}
}

func TestNATReusesThePortsOfFlowsThatAreOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		state uint32
		age   uint64 // seconds
		taken bool   // by another flow
	}{
		{"reset just now", 4, 5, false},
		{"reset", 4, 11, true},
		{"both ends closed just now", 1 | 2 | 8, 50, false},
		{"both ends closed", 1 | 2 | 8, 61, true},
		{"one end closed", 1 | 8, 100, false},
		{"never answered", 0, 61, true},
		{"open", 8, 7000, false},
		{"silent", 8, 7441, true},
	} {
		r := newNAT(t)
		r.config(60000, 1)
		p := packet{from: cli4, to: vip4, protocol: tcp, flags: syn}
		r.forward(outside4, p.frame())
		var key NatNatKey
		var flow NatNatFlow
		entries := r.NatFlows.Iterate()
		if !entries.Next(&key, &flow) {
			t.Fatal("no flow")
		}
		flow.State = c.state
		flow.UsedNs -= c.age * 1e9
		if err := r.NatFlows.Put(&key, &flow); err != nil {
			t.Fatal(err)
		}
		p.from = ap("203.0.113.10:1")
		word, _ := r.forward(outside4, p.frame())
		if taken := word == xdpTX; taken != c.taken {
			t.Errorf("%s: another flow took the port: %v, want %v", c.name, taken, c.taken)
		}
	}
}

func TestNATFollowsTheEndsOfConnections(t *testing.T) {
	r := newNAT(t)
	state := func() uint32 {
		t.Helper()
		var key NatNatKey
		var flow NatNatFlow
		if !r.NatFlows.Iterate().Next(&key, &flow) {
			t.Fatal("no flow")
		}
		return flow.State
	}
	port := uint16(0)
	client := func(flags uint8) {
		_, out := r.forward(outside4, packet{from: cli4, to: vip4, protocol: tcp, flags: flags}.frame())
		port = sourcePort(out)
	}
	backend := func(flags uint8) {
		r.reply(packet{from: outside4, to: netip.AddrPortFrom(own4, port), protocol: tcp, flags: flags}.frame())
	}
	for i, step := range []struct {
		do    func(uint8)
		flags uint8
		want  uint32
	}{
		{client, syn, 0}, {backend, syn | ack, 8}, {client, ack, 8}, {client, fin | ack, 9}, {backend, fin | ack, 11},
		{client, syn, 8}, {backend, rst, 12}, {client, syn, 8}, {client, rst, 12},
	} {
		step.do(step.flags)
		if got := state(); got != step.want {
			t.Errorf("step %d: the state is %d, want %d", i, got, step.want)
		}
	}
}

func TestNATLeavesAloneWhatIsNotItsOwn(t *testing.T) {
	r := newNAT(t)
	_, out := r.forward(outside4, packet{from: cli4, to: vip4, protocol: tcp, flags: syn}.frame())
	own := netip.AddrPortFrom(own4, sourcePort(out))
	for name, p := range map[string]packet{
		"another backend":      {from: ap("10.90.0.6:8080"), to: own, protocol: tcp},
		"another backend port": {from: ap("10.90.0.5:8081"), to: own, protocol: tcp},
		"another protocol":     {from: outside4, to: own, protocol: udp},
		"another port":         {from: outside4, to: netip.AddrPortFrom(own4, own.Port()^1), protocol: tcp},
		"below the range":      {from: outside4, to: ap("10.80.0.31:22"), protocol: tcp},
		"another address":      {from: outside4, to: netip.AddrPortFrom(own4.Next(), own.Port()), protocol: tcp},
	} {
		word, out := r.reply(p.frame())
		expect(t, name, word, out, xdpPass, p.frame())
	}
	for name, in := range map[string][]byte{
		"ping":     frame(icmpOf(outside4.Addr(), own4, 8, 0, bytesOf(40))),
		"cut tcp":  frame(ip4(outside4.Addr(), own4, tcp, 0, 0, nil, bytesOf(8))),
		"sctp":     frame(ip4(outside4.Addr(), own4, 132, 0, 0, nil, bytesOf(40))),
		"an error": frame(icmp(outside4.Addr(), own4, packet{from: ap("10.80.0.31:22"), to: outside4, protocol: tcp}.ip())),
	} {
		word, out := r.reply(in)
		expect(t, name, word, out, xdpPass, in)
	}
}

func TestNATDropsWhatItCannotForward(t *testing.T) {
	r := newNAT(t)
	for _, c := range []struct {
		name string
		why  NatNatResult
		in   []byte
	}{
		{"cut tcp", NatNatResultNAT_MALFORMED, frame(ip4(cli4.Addr(), vip4.Addr(), tcp, 0, 0, nil, bytesOf(19)))},
		{"cut udp", NatNatResultNAT_MALFORMED, frame(ip4(cli4.Addr(), vip4.Addr(), udp, 0, 0, nil, bytesOf(7)))},
		{"error that quotes nothing", NatNatResultNAT_MALFORMED, frame(icmp(cli4.Addr(), vip4.Addr(), bytesOf(9)))},
		{"error about an unknown flow", NatNatResultNAT_UNKNOWN, frame(icmp(cli4.Addr(), vip4.Addr(), packet{from: vip4, to: cli4, protocol: tcp}.ip()))},
		{"ping", NatNatResultNAT_UNKNOWN, frame(icmpOf(cli4.Addr(), vip4.Addr(), 8, 0, packet{from: vip4, to: cli4, protocol: tcp}.ip()))},
	} {
		before := r.counted(c.why)
		word, out := r.forward(outside4, c.in)
		expect(t, c.name, word, out, xdpDrop, c.in)
		if got := r.counted(c.why) - before; got != 1 {
			t.Errorf("%s: counted %d times, want once", c.name, got)
		}
	}
	if err := r.NatConfig.Put(uint32(0), &NatNatConfig{FirstPort: 1, Ports: 1}); err != nil {
		t.Fatal(err)
	}
	word, _ := r.forward(outside4, packet{from: cli4, to: vip4, protocol: udp}.frame())
	if word != xdpDrop || r.counted(NatNatResultNAT_NO_ADDRESS) != 1 {
		t.Errorf("without an address: got the word %d, want a drop that is counted", word)
	}
}

func TestNATTranslatesErrorsBothWays(t *testing.T) {
	r := newNAT(t)
	for _, f := range natFamilies {
		for _, protocol := range []uint8{tcp, udp} {
			for _, cut := range []int{8, 40} {
				p := packet{from: f.client, to: f.vip, protocol: protocol, flags: ack, payload: bytesOf(40)}
				known := p.ip()
				_, out := r.forward(f.backend, p.frame())
				own := netip.AddrPortFrom(f.own, sourcePort(out))
				sent := out[ethernet:]
				copyCheck(known, sent, f.inner, protocol)
				cut := f.inner + cut
				word, out := r.reply(frame(icmp(f.backend.Addr(), f.own, sent[:cut])))
				expect(t, f.name+" by the backend", word, out, xdpTX, frame(icmp(f.vip.Addr(), f.client.Addr(), known[:cut])))
				router := f.own.Next()
				word, out = r.reply(frame(icmp(router, f.own, sent[:cut])))
				expect(t, f.name+" by a router", word, out, xdpTX, frame(icmp(router, f.client.Addr(), known[:cut])))

				answer := packet{from: f.vip, to: f.client, protocol: protocol, flags: ack, payload: bytesOf(40)}.ip()
				behind := packet{from: f.backend, to: own, protocol: protocol, flags: ack, payload: bytesOf(40)}.ip()
				copyCheck(behind, answer, f.inner, protocol)
				word, out = r.forward(f.backend, frame(icmp(f.client.Addr(), f.vip.Addr(), answer[:cut])))
				expect(t, f.name+" about answers", word, out, xdpTX, frame(icmp(f.own, f.backend.Addr(), behind[:cut])))
			}
		}
	}
}
