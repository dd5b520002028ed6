package bench

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/program"
	"github.com/weirproject/weir/testenv/bench/load"
)

// variant is one way from a client to a backend.
type variant struct {
	name, what string
	// base names the variant that this one is compared with: one that reaches as
	// many different backends.
	base string
	// tool that must be installed; empty for none.
	tool string
	// tcpOnly variants cannot forward UDP.
	tcpOnly bool
	// programs tells that eBPF programs of the client's cgroup are measured.
	programs bool
	// prepare sets the way up on the client's host.
	prepare func(*client) error
	// targets to which traffic of the kind goes.
	targets func(load.Op) []netip.AddrPort
}

// Names of the variants that others are compared with: connections to the
// backends of one service, and to those of all that get traffic.
const (
	direct     = "direct"
	directMany = "direct-many"
)

// variants in the order of the report; the first is what the others are
// compared with.
func variants(o Options) []variant {
	one, many := makeTable(1, o.Backends), makeTable(o.Services, o.Backends)
	straight := func(t dataplane.Table) func(load.Op) []netip.AddrPort {
		return func(op load.Op) []netip.AddrPort { return directTargets(t, op) }
	}
	through := func(t dataplane.Table) func(load.Op) []netip.AddrPort {
		return func(op load.Op) []netip.AddrPort { return frontends(t, op) }
	}
	nothing := func(*client) error { return nil }
	size := fmt.Sprintf("%d×%d", o.Services, o.Backends)
	all := []variant{
		{name: direct, what: "the backends' own addresses", prepare: nothing, targets: straight(one)},
		{name: "direct-again", what: "the same: the noise", prepare: nothing, targets: straight(one)},
		{name: directMany, what: "the same, to the backends of " + size, prepare: nothing, targets: straight(many)},
		{name: "empty", what: "direct, with programs on all of Weir's hooks that return at once", programs: true, prepare: attachEmpty, targets: straight(one)},
		{name: "weir-1", what: "Weir, 1 service", programs: true, prepare: balance(one), targets: through(one)},
		{name: "weir-hot", what: "Weir, " + size + ", traffic to one service alone", programs: true, prepare: balance(many), targets: func(op load.Op) []netip.AddrPort { return frontends(many, op)[:1] }},
		{name: "weir-many", what: "Weir, " + size, base: directMany, programs: true, prepare: balance(many), targets: through(many)},
		{name: "weir-bypass", what: "Weir, " + size + ", direct connections past it", programs: true, prepare: balance(many), targets: straight(one)},
	}
	all = append(all, peerVariants(one, many, size, through)...)
	for i := range all {
		all[i].base = cmp.Or(all[i].base, direct)
	}
	return all
}

// peerVariants are what else one could use.
func peerVariants(one, many dataplane.Table, size string, through func(dataplane.Table) func(load.Op) []netip.AddrPort) (all []variant) {
	for _, p := range []struct {
		name, what string
		base       string // at the larger size
		rules      func(dataplane.Table) string
		argv       []string
	}{
		{"nft-chains", "nftables, a verdict map to chains, as kube-proxy's nftables mode", directMany, nftChains, nftCommand},
		{"nft-map", "nftables, one flat DNAT map to one backend each", direct, nftMap, nftCommand},
		{"iptables", "iptables, chains in a row, as kube-proxy's iptables mode", directMany, iptablesChains, iptablesCommand},
	} {
		for _, n := range []struct {
			suffix, what, base string
			table              dataplane.Table
		}{{"-1", "1 service", direct, one}, {"-many", size, p.base, many}} {
			all = append(all, variant{
				name: p.name + n.suffix, what: p.what + ", " + n.what, base: n.base, tool: p.argv[0], targets: through(n.table),
				prepare: func(c *client) error { return c.run(context.Background(), p.rules(n.table), p.argv...) },
			})
		}
	}
	return append(all, variant{
		name: "haproxy-1", what: "HAProxy in TCP mode, 1 service; its own CPU time is not counted, and connections open before it has a backend", tool: "haproxy", tcpOnly: true, targets: through(one),
		prepare: func(c *client) error { return startHAProxy(c, one) },
	})
}

// balance runs Weir's own sink on the client's cgroup.
func balance(t dataplane.Table) func(*client) error {
	return func(c *client) error {
		b, err := program.New(sinkOptions(c, t))
		if err != nil {
			return err
		}
		c.undo = append(c.undo, func() { b.Close() })
		_, err = b.Set(context.Background(), t)
		return err
	}
}

// sinkOptions makes room for the table and for one change beside it.
func sinkOptions(c *client, t dataplane.Table) program.Options {
	return program.Options{PinDir: c.pins, Cgroup: c.cgroup, Sizes: sizesFor(t)}
}

// sizesFor holds the table and, beside it, what an update of a hundredth of it
// needs.
func sizesFor(t dataplane.Table) program.Sizes {
	services, backends := uint32(len(t.Services)), uint32(0)
	for _, s := range t.Services {
		// Runs of slots begin at multiples of 16.
		backends += uint32(len(s.Backends)+15) &^ 15
	}
	room := func(n uint32) uint32 { return n + n/100 + 4096 }
	return program.Sizes{Services: room(services), Frontends: room(services), Backends: room(backends), Slots: room(backends)}
}
