package zonebench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/nft"
)

// way is rules that connections pass.
type way struct {
	name  string
	lay   func(context.Context, *rig) error
	rig   *rig
	rates [2][]float64 // of each round, to the node and through it
}

// reference is the way that the others are compared with.
const reference = "one accept-all rule"

func ways(o Options) []*way {
	one := func(ctx context.Context, r *rig) error { return set(ctx, r, oneRule()) }
	all := []*way{
		{name: "no rules, no conntrack", lay: func(context.Context, *rig) error { return nil }},
		{name: reference, lay: one},
		{name: "the same again", lay: one},
	}
	for _, n := range []int{10, 1000, o.Members} {
		all = append(all, &way{name: fmt.Sprintf("Weir, %d members", n), lay: func(ctx context.Context, r *rig) error {
			rules, err := compile(o, n)
			if err != nil {
				return err
			}
			return set(ctx, r, rules)
		}})
	}
	if _, err := exec.LookPath("iptables-legacy-restore"); err != nil {
		o.Log.Warn("no iptables: rules for every address are not measured", "error", err)
		return all
	}
	for _, n := range []int{10, 1000, o.Members} {
		all = append(all, &way{name: fmt.Sprintf("iptables, a rule for each of %d addresses", n), lay: func(ctx context.Context, r *rig) error { return perAddress(ctx, r, n) }})
	}
	return all
}

func set(ctx context.Context, r *rig, rules *dataplane.Ruleset) error {
	f, err := nft.New(nft.Options{NetNS: int(r.node.ns)})
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Set(ctx, rules)
	return err
}

// perAddress lays the rules that people write by hand: one for each address, of
// which the client's is the last.
func perAddress(ctx context.Context, r *rig, members int) error {
	dir, err := os.MkdirTemp("", "weir-zonebench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var rules strings.Builder
	rules.WriteString("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	for _, chain := range []string{"INPUT", "FORWARD"} {
		fmt.Fprintf(&rules, "-A %s -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n", chain)
		for i := range members {
			fmt.Fprintf(&rules, "-A %s -s 11.%d.%d.%d -p tcp --dport %d -j ACCEPT\n", chain, i>>16, i>>8&255, i&255, port)
		}
		fmt.Fprintf(&rules, "-A %s -s %s -p tcp --dport %d -j ACCEPT\n", chain, clientAddress, port)
	}
	rules.WriteString("COMMIT\n")
	return r.node.do(func() error {
		cmd := exec.CommandContext(ctx, "iptables-legacy-restore")
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(dir, "lock")) // not the machine's
		cmd.Stdin = bytes.NewReader([]byte(rules.String()))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iptables-legacy-restore: %w: %s", err, out)
		}
		return nil
	})
}

// connections measures all ways in turns.
func (r *Result) connections(ctx context.Context, o Options) error {
	all := ways(o)
	defer func() {
		for _, w := range all {
			if w.rig != nil {
				w.rig.close()
			}
		}
	}()
	for _, w := range all {
		var err error
		if w.rig, err = newRig(); err == nil {
			err = w.lay(ctx, w.rig)
		}
		if err != nil {
			return fmt.Errorf("lay %s: %w", w.name, err)
		}
		o.Log.Info("laid", "way", w.name)
	}
	for round := range o.Rounds {
		for i := range all {
			w := all[(i+round)%len(all)] // each round begins with another one
			for target, a := range []netip.Addr{nodeAddress, serverAddress} {
				if err := ctx.Err(); err != nil {
					return err
				}
				rate, err := w.rig.rate(a, o.Turn)
				if err != nil {
					return fmt.Errorf("%s to %s: %w", w.name, a, err)
				}
				w.rates[target] = append(w.rates[target], rate)
			}
		}
	}
	base := all[slices.IndexFunc(all, func(w *way) bool { return w.name == reference })]
	for _, w := range all {
		r.Rows = append(r.Rows, Row{w.name, ratesOf(w.rates[0], base.rates[0]), ratesOf(w.rates[1], base.rates[1])})
	}
	return nil
}

func ratesOf(rates, base []float64) Rates {
	ratios := make([]float64, len(rates))
	for i := range rates {
		ratios[i] = rates[i] / base[i]
	}
	slices.Sort(ratios)
	sorted := slices.Sorted(slices.Values(rates))
	n := len(ratios)
	return Rates{PerSecond: sorted[n/2], OfOneRule: ratios[n/2], Least: ratios[n/4], Top: ratios[n*3/4]}
}

// rate opens connections from the client, one after the other, and gives how
// many a second.
func (r *rig) rate(to netip.Addr, turn time.Duration) (float64, error) {
	n, took := 0, time.Duration(0)
	err := r.client.do(func() error {
		start := time.Now()
		for ; took < turn || n == 0; took = time.Since(start) {
			if err := connect(&unix.SockaddrInet4{Addr: to.As4(), Port: port}); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return float64(n) / took.Seconds(), err
}
