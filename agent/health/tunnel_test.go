package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/weirproject/weir/api"
)

// through is a target that is checked through the tunnel.
func through(way Tunnel, backend netip.AddrPort) Target {
	k := target(backend.String(), api.HealthCheck{TCP: &api.TCPCheck{Tunnel: true}})
	k.Tunnel = &way
	return k
}

// with is an answer of the backend, under the virtual address.
func (got tunnelled) with(flags byte) segment {
	return segment{from: got.to, to: got.from, seq: 99, ack: got.seq + 1, flags: flags}
}

func accept(got tunnelled) []segment {
	if got.flags != flagSYN {
		return nil
	}
	return []segment{got.with(flagSYN | flagACK)}
}

// settled waits until the node has seen what the checks sent.
func settled(t *testing.T, f *fakeNode, want string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); f.flags() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the node got %q, want %q", f.flags(), want)
		}
	}
}

func TestTunnelCheckPasses(t *testing.T) {
	for name, c := range ways {
		t.Run(name, func(t *testing.T) {
			edge, node := newWire(t)
			f := newFakeNode(t, node, accept)
			_, probe := edgeProbes(t, edge)
			made := probe(through(c.way, c.backend))
			for range 2 {
				if err := within(t.Context(), 5*time.Second, made); err != nil {
					t.Fatal(err)
				}
			}
			settled(t, f, "SYN RST SYN RST")
			first, second := f.seen[0], f.seen[2]
			outer := c.way.Outer
			if !outer.IsValid() {
				outer = c.way.Source
			}
			if first.backend != c.backend || first.to != c.way.VIP || first.from.Addr() != c.way.Source || first.edge != outer {
				t.Errorf("the node got %+v, want the way %+v to %s", first, c.way, c.backend)
			}
			if rst := f.seen[1]; rst.seq != first.seq+1 || rst.from != first.from || rst.to != first.to {
				t.Errorf("the SYN %+v was ended by %+v", first, rst)
			}
			if first.from != second.from {
				t.Errorf("the second check came from %s, want the same port as the first, %s", second.from, first.from)
			}
		})
	}
}

func TestTunnelCheckIsRefused(t *testing.T) {
	for _, name := range []string{"4 in 4", "6 in 6"} {
		c := ways[name]
		edge, node := newWire(t)
		newFakeNode(t, node, func(got tunnelled) []segment { return []segment{got.with(flagRST | flagACK)} })
		_, probe := edgeProbes(t, edge)
		err := within(t.Context(), 5*time.Second, probe(through(c.way, c.backend)))
		if !errors.Is(err, syscall.ECONNREFUSED) || isOurs(err) || isAnswer(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTunnelCheckOfASilentBackend(t *testing.T) {
	edge, node := newWire(t)
	f := newFakeNode(t, node, func(tunnelled) []segment { return nil })
	_, probe := edgeProbes(t, edge)
	made := probe(through(ways["6 in 6"].way, back6))
	for range 2 {
		if err := within(t.Context(), 50*time.Millisecond, made); err == nil || err.Error() != "no answer within 50ms" {
			t.Errorf("got %v", err)
		}
	}
	settled(t, f, "SYN RST SYN RST")
	if f.seen[0].from == f.seen[2].from {
		t.Error("a port is used again that may still get an answer")
	}
}

func TestTunnelCheckHearsNobodyElse(t *testing.T) {
	edge, node := newWire(t)
	newFakeNode(t, node, func(got tunnelled) []segment {
		open := got.with(flagSYN | flagACK)
		port, address, none := open, open, open
		port.from = netip.AddrPortFrom(vip4.Addr(), 81)
		address.from = back4
		none.ack = 0
		return []segment{port, address, none}
	})
	_, probe := edgeProbes(t, edge)
	if err := within(t.Context(), 50*time.Millisecond, probe(through(ways["4 in 4"].way, back4))); err == nil || err.Error() != "no answer within 50ms" {
		t.Errorf("got %v", err)
	}
}

func TestTunnelCheckTellsAWrongChecksum(t *testing.T) {
	for _, name := range []string{"4 in 4", "6 in 6"} {
		c := ways[name]
		edge, node := newWire(t)
		newFakeNode(t, node, func(got tunnelled) []segment {
			s := got.with(flagSYN | flagACK)
			s.damaged = true
			return []segment{s}
		})
		_, probe := edgeProbes(t, edge)
		err := within(t.Context(), 5*time.Second, probe(through(c.way, c.backend)))
		if want := c.way.VIP.String() + " answered with a wrong checksum"; err == nil || err.Error() != want || !isAnswer(err) {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestTunnelCheckSendsALostSYNAgain(t *testing.T) {
	edge, node := newWire(t)
	var syns atomic.Int32
	f := newFakeNode(t, node, func(got tunnelled) []segment {
		if got.flags == flagSYN && syns.Add(1) == 1 {
			return nil
		}
		return accept(got)
	})
	_, probe := edgeProbes(t, edge)
	if err := within(t.Context(), 10*time.Second, probe(through(ways["4 in 4"].way, back4))); err != nil {
		t.Fatal(err)
	}
	settled(t, f, "SYN SYN RST")
	if f.seen[0].seq != f.seen[1].seq {
		t.Error("the second SYN has another sequence number")
	}
}

// The packet filter knows of no connection, and the virtual address may be this
// node's own, for which the kernel takes nothing from outside.
func TestTunnelCheckPassesWhateverTheKernelThinksOfTheAnswer(t *testing.T) {
	edge, node := newWire(t)
	newFakeNode(t, node, accept)
	edge.address("lo", netip.PrefixFrom(vip4.Addr(), 32))
	drop := nftables.ChainPolicyDrop
	edge.must(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "shut", Family: nftables.TableFamilyIPv4})
		conn.AddChain(&nftables.Chain{
			Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityRaw, Policy: &drop,
		})
		return conn.Flush()
	})
	_, probe := edgeProbes(t, edge)
	if err := within(t.Context(), 5*time.Second, probe(through(ways["4 in 4"].way, back4))); err != nil {
		t.Error(err)
	}
}

func TestAnAddressThatTheNodeDoesNotHaveIsNoFailureOfTheBackend(t *testing.T) {
	edge, _ := newWire(t)
	way := ways["4 in 4"].way
	way.Source = netip.MustParseAddr("10.80.0.99")
	_, probe := edgeProbes(t, edge)
	if err := within(t.Context(), time.Second, probe(through(way, back4))); !isOurs(err) {
		t.Errorf("got %v", err)
	}
	way = ways["4 in 4"].way
	way.Node = netip.MustParseAddr("192.0.2.1") // no route leads there
	if err := within(t.Context(), time.Second, probe(through(way, back4))); !errors.Is(err, syscall.ENETUNREACH) || isOurs(err) {
		t.Errorf("got %v", err)
	}
}

// Many checks at once share the sockets, and every one gets its own answer.
func TestTunnelChecksAreToldApart(t *testing.T) {
	edge, node := newWire(t)
	refused := func(backend netip.AddrPort) bool { return backend.Port()%3 == 0 }
	newFakeNode(t, node, func(got tunnelled) []segment {
		if refused(got.backend) && got.flags == flagSYN {
			return []segment{got.with(flagRST | flagACK)}
		}
		return accept(got)
	})
	shared, probe := edgeProbes(t, edge)
	c := New(Options{})
	c.probe = probe
	var all []Target
	for i := range 200 {
		k := through(ways["4 in 4"].way, netip.AddrPortFrom(back4.Addr(), uint16(1000+i)))
		k.Check.Timeout = api.Duration(5 * time.Second)
		all = append(all, k)
	}
	c.Set(all)
	run(t, c)
	for _, k := range all {
		if refused(k.Backend) {
			if reason := eventually(t, c, k, api.Down); reason != fmt.Sprintf("connect to %s through the tunnel to %s: connection refused", vip4, node4) {
				t.Errorf("%s: %s", k.Backend, reason)
			}
			continue
		}
		eventually(t, c, k, api.Up)
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if len(shared.taps) != 1 || len(shared.outer) != 1 {
		t.Errorf("%d taps and %d sockets for tunnels are open, want one each", len(shared.taps), len(shared.outer))
	}
}

func TestAnotherWayIsAnotherCheck(t *testing.T) {
	c := New(Options{})
	var made []Target
	c.probe = func(k Target) probeFunc { made = append(made, k); return func(context.Context) error { return nil } }
	way, same := ways["4 in 4"].way, ways["4 in 4"].way
	other := way
	other.Node = node6
	k := through(way, back4)
	for _, way := range []*Tunnel{&way, &same, &other, nil, nil} {
		k.Tunnel = way
		c.Set([]Target{k})
	}
	if len(made) != 3 {
		t.Errorf("%d checks were made for three ways", len(made))
	}
}

func TestWithoutATunnelTheCheckIsDirect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check := api.HealthCheck{TCP: &api.TCPCheck{Tunnel: true}}
	if err := try(t, l.Addr().String(), 5*time.Second, check); err != nil {
		t.Error(err)
	}
}

func TestTunnelSocketsAreClosedInTheEnd(t *testing.T) {
	edge, node := newWire(t)
	newFakeNode(t, node, accept)
	shared, probe := edgeProbes(t, edge)
	for range 2 { // it can begin again
		if err := within(t.Context(), 5*time.Second, probe(through(ways["4 in 4"].way, back4))); err != nil {
			t.Fatal(err)
		}
		shared.close()
		if len(shared.taps)+len(shared.outer)+len(shared.free)+len(shared.ports) != 0 {
			t.Errorf("left: %+v", shared)
		}
	}
}

func TestABrokenTapIsOpenedAgain(t *testing.T) {
	edge, node := newWire(t)
	newFakeNode(t, node, accept)
	shared, probe := edgeProbes(t, edge)
	made := probe(through(ways["4 in 4"].way, back4))
	if err := within(t.Context(), 5*time.Second, made); err != nil {
		t.Fatal(err)
	}
	shared.mu.Lock()
	shared.taps[false].file.Close()
	shared.mu.Unlock()
	shared.running.Wait()
	if err := within(t.Context(), 5*time.Second, made); err != nil {
		t.Fatal(err)
	}
}
