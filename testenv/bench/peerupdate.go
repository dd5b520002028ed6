package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirproject/weir/dataplane"
)

// peers loads the same services by the peers' own tools and changes one.
func (r *UpdateReport) peers(ctx context.Context, hosts []*client, t dataplane.Table, patience time.Duration) {
	one, total := plans(t)[len(t.Services)/2], len(t.Services)*len(t.Services[0].Backends)
	for _, peer := range []struct {
		host                       *client
		what, load, change, effect string
		argv, changeArgv           []string
	}{
		{hosts[0], "nftables, chains (most services with one backend)", nftChains(t), nftAdd(one), "add one service", nftCommand, nftCommand},
		{hosts[1], "iptables, chains (most services with one backend)", iptablesChains(t), iptablesChange(one), "change one service", iptablesCommand, []string{iptablesCommand[0], "--noflush"}},
		{hosts[0], fmt.Sprintf("nftables, one map of %d backends", total), nftWhole(t), nftReplace(t.Services[0]), "replace one backend", nftCommand, nftCommand},
	} {
		if r.peer(ctx, peer.host, peer.what+": load", peer.load, peer.argv, patience) {
			r.peer(ctx, peer.host, peer.what+": "+peer.effect, peer.change, peer.changeArgv, patience)
		}
	}
}

// peer times one step and tells whether it worked.
func (r *UpdateReport) peer(ctx context.Context, c *client, what, rules string, argv []string, patience time.Duration) bool {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	err := c.run(limited, rules, argv...)
	u := PeerUpdate{What: what, Took: time.Since(start)}
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		u.Fault = fmt.Sprintf("given up after %s", patience)
	} else if err != nil {
		u.Fault = err.Error()
	}
	r.Peers = append(r.Peers, u)
	return err == nil
}

// nftReplace gives the first backend of nftWhole's map another port.
func nftReplace(s *dataplane.Service) string {
	key := fmt.Sprintf("%s . %d . 0", s.Frontends[0].Addr(), s.Frontends[0].Port())
	return fmt.Sprintf("delete element ip whole backends { %s }\nadd element ip whole backends { %s : %s . 9 }\n", key, key, s.Backends[0].Address.Addr())
}

// iptablesChange leaves a service of iptablesChains one backend.
func iptablesChange(p servicePlan) string {
	return fmt.Sprintf("*nat\n-F SVC-%d\n-A SVC-%d -j SEP-%d-0\nCOMMIT\n", p.id, p.id, p.id)
}

// nftAdd is one more service for the table of nftChains.
func nftAdd(p servicePlan) string {
	var b strings.Builder
	var choices []string
	for j, to := range p.backends {
		fmt.Fprintf(&b, "add chain ip peer new-%d\nadd rule ip peer new-%d meta l4proto %s dnat to %s\n", j, j, p.protocol, to)
		choices = append(choices, fmt.Sprintf("%d : goto new-%d", j, j))
	}
	fmt.Fprintf(&b, "add chain ip peer new\nadd rule ip peer new numgen random mod %d vmap { %s }\n", len(choices), strings.Join(choices, ", "))
	fmt.Fprintf(&b, "add element ip peer services { 198.19.255.254 . %s . %s : goto new }\n", p.protocol, p.port())
	return b.String()
}

// nftWhole has every backend of every service in one map, by number.
func nftWhole(t dataplane.Table) string {
	var b strings.Builder
	b.WriteString("table ip whole {\nmap backends {\ntype ipv4_addr . inet_service . mark : ipv4_addr . inet_service\nelements = {\n")
	for _, s := range t.Services {
		for j, to := range s.Backends {
			fmt.Fprintf(&b, "%s . %d . %d : %s . %d,\n", s.Frontends[0].Addr(), s.Frontends[0].Port(), j, to.Address.Addr(), to.Address.Port())
		}
	}
	b.WriteString("}\n}\n}\n")
	return b.String()
}
