package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

func (c *cli) vipTopCommand() *cobra.Command {
	var every time.Duration
	var rounds int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the busiest VIPs and backends: rates, open connections, errors",
		Long: `Watch the busiest VIPs and backends of this node: connections a second, open
connections, refusals and failures, the busiest first. On a terminal it fills the
screen anew each time, until interrupted; elsewhere it prints one page after the
other.`,
		Example: "  weir vip top\n  weir vip top --every 5s --rounds 1 -o json",
		Args:    arguments(0, 0, ""),
	}
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two looks, at least 100ms")
	cmd.Flags().IntVar(&rounds, "rounds", 0, "how many looks to print; 0: until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if every < 100*time.Millisecond {
			return usage(cmd, "--every %s is shorter than 100ms", every)
		}
		if rounds < 0 {
			return usage(cmd, "--rounds %d is negative", rounds)
		}
		return c.top(cmd.Context(), every, rounds)
	}
	return cmd
}

// load is what one VIP or backend had to do between two looks.
type load struct {
	Name     string       `json:"name"`
	Protocol api.Protocol `json:"protocol"`
	Backend  string       `json:"backend,omitempty"` // empty: the whole VIP
	// Rate of new connections, per second.
	Rate float64 `json:"rate"`
	Open uint64  `json:"open"`
	// Refused, Failed and Reset since the look before.
	Refused uint64 `json:"refused"`
	Failed  uint64 `json:"failed"`
	Reset   uint64 `json:"reset"`
	State   string `json:"state"`
}

func (c *cli) top(ctx context.Context, every time.Duration, rounds int) error {
	before, err := c.vips(ctx)
	if err != nil {
		return err
	}
	last := c.now()
	for n := 0; rounds == 0 || n < rounds; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		after, err := c.vips(ctx)
		if err != nil {
			return err
		}
		now := c.now()
		loads := loadsBetween(before, after, now.Sub(last))
		if c.onTerminal() && c.output == "table" {
			fmt.Fprint(c.stdout, "\x1b[H\x1b[2J")
		}
		if err := c.print(loads, func(p *page) { topPage(p, loads) }); err != nil {
			return err
		}
		before, last = after, now
	}
	return nil
}

// loadsBetween compares two looks; the busiest VIP comes first, each with its
// backends below it.
func loadsBetween(before, after []api.VIPStatus, span time.Duration) []load {
	old := map[string]uint64{}
	key := func(parts ...any) string { return fmt.Sprint(parts...) }
	for _, v := range before {
		name := vipName(v) + string(v.Protocol)
		old[key(name, "c")], old[key(name, "r")] = v.Connections, v.Refused+v.Limited
		for _, b := range v.Backends {
			old[key(name, b.Address, "c")], old[key(name, b.Address, "f")], old[key(name, b.Address, "x")] = b.Connections, b.Failures, b.Reset
		}
	}
	// A counter that starts anew is smaller than it was.
	since := func(now uint64, parts ...any) uint64 { return now - min(now, old[key(parts...)]) }
	rate := func(n uint64) float64 { return float64(n) / max(span.Seconds(), 0.001) }
	var groups [][]load
	for _, v := range after {
		name := vipName(v) + string(v.Protocol)
		group := []load{{
			Name: vipName(v), Protocol: v.Protocol, Open: v.Open, State: vipState(v),
			Rate: rate(since(v.Connections, name, "c")), Refused: since(v.Refused+v.Limited, name, "r"),
		}}
		for _, b := range v.Backends {
			failed, reset := since(b.Failures, name, b.Address, "f"), since(b.Reset, name, b.Address, "x")
			group[0].Failed, group[0].Reset = group[0].Failed+failed, group[0].Reset+reset
			group = append(group, load{
				Name: vipName(v), Protocol: v.Protocol, Backend: b.Address.String(), Open: b.Open, State: string(b.State),
				Rate: rate(since(b.Connections, name, b.Address, "c")), Failed: failed, Reset: reset,
			})
		}
		slices.SortStableFunc(group[1:], busier)
		groups = append(groups, group)
	}
	slices.SortStableFunc(groups, func(a, b []load) int { return busier(a[0], b[0]) })
	return slices.Concat(groups...)
}

func busier(a, b load) int { return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Open, a.Open)) }

func topPage(p *page, loads []load) {
	p.row("VIP", "PROTOCOL", "BACKEND", "CONN/S", "OPEN", "REFUSED", "FAILED", "RESET", "STATE")
	for _, l := range loads {
		name, protocol := l.Name, string(l.Protocol)
		if l.Backend != "" {
			name, protocol = "", ""
		}
		p.row(name, protocol, orDash(l.Backend), fmt.Sprintf("%.1f", l.Rate), l.Open, l.Refused, l.Failed, l.Reset, l.State)
	}
}

// onTerminal tells whether stdout is one.
func (c *cli) onTerminal() bool {
	f, is := c.stdout.(*os.File)
	if !is {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
