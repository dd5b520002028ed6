package testenv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A Cut is a direction in which no frame passes between two hosts, on any
// network.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Cut parts two hosts in both directions, or with oneWay only keeps what from
// sends to to from arriving. An empty to stands for every other host. Not even
// neighbour discovery passes, as when a cable is out.
func (l *Lab) Cut(ctx context.Context, from, to string, oneWay bool) error {
	return l.changeCuts(ctx, []string{from, to}, func(cuts []Cut) []Cut {
		for _, h := range l.Spec.Hosts {
			if h.Name == from || to != "" && h.Name != to {
				continue
			}
			cuts = append(cuts, Cut{from, h.Name})
			if !oneWay {
				cuts = append(cuts, Cut{h.Name, from})
			}
		}
		return cuts
	})
}

// Heal joins two hosts again; without a second, the first with all; without
// both, everybody.
func (l *Lab) Heal(ctx context.Context, a, b string) error {
	return l.changeCuts(ctx, []string{a, b}, func(cuts []Cut) []Cut {
		return slices.DeleteFunc(cuts, func(c Cut) bool {
			concerns := func(host string) bool { return host == "" || c.From == host || c.To == host }
			return concerns(a) && concerns(b)
		})
	})
}

// Cuts lists what is cut, sorted.
func (l *Lab) Cuts() ([]Cut, error) {
	data, err := os.ReadFile(l.file("cuts.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var cuts []Cut
	if err == nil {
		err = json.Unmarshal(data, &cuts)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cuts: %w", err)
	}
	return cuts, nil
}

func (l *Lab) changeCuts(ctx context.Context, hosts []string, change func([]Cut) []Cut) error {
	for _, h := range hosts {
		if _, err := l.host(h); h != "" && err != nil {
			return err
		}
	}
	if hosts[0] != "" && hosts[0] == hosts[1] {
		return fmt.Errorf("%s cannot be cut from itself", hosts[0])
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	cuts, err := l.Cuts()
	if err != nil {
		return err
	}
	cuts = change(cuts)
	slices.SortFunc(cuts, func(a, b Cut) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	cuts = slices.Compact(cuts)
	if err := l.setCuts(cuts); err != nil {
		return err
	}
	return writeJSON(l.file("cuts.json"), cuts)
}

// setCuts makes the bridges hold these cuts and no others, in one atomic step.
func (l *Lab) setCuts(cuts []Cut) error {
	p, err := readProcess(l.file("wires.pid"))
	if err != nil {
		return err
	}
	ns, err := p.netns()
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return fmt.Errorf("open nftables in the wires: %w", err)
	}
	table := &nftables.Table{Name: "cuts", Family: nftables.TableFamilyBridge}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	for _, c := range cuts {
		from, to := l.ports(l.index(c.From)), l.ports(l.index(c.To))
		for network, port := range from {
			if peer, shared := to[network]; shared {
				conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropBetween(port, peer)})
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set nftables in the wires: %w", err)
	}
	return nil
}

// dropBetween is: iifname FROM oifname TO counter drop. Names and not indexes,
// since a host that comes back has a new link under the old name.
func dropBetween(from, to string) []expr.Any {
	name := func(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name(from)},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name(to)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
