package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

// flowFormats are the values of --output of flows and drops.
var flowFormats = []string{"table", "compact", "json"}

// flowWatch is what flows and drops have in common.
type flowWatch struct {
	filter api.FlowFilter
	follow bool
	period time.Duration
}

func (w *flowWatch) flags(c *cli, cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&w.follow, "follow", "f", false, "show what comes, until interrupted")
	f.DurationVar(&w.period, "for", 5*time.Second, "how long to look, without -f; more than 0")
	f.StringArrayVar(&w.filter.From, "from", nil, "only from such: app=, zone=, node=, task=, process= or address=; several must all hold")
	f.StringArrayVar(&w.filter.To, "to", nil, "only to such")
	f.Uint16Var(&w.filter.Port, "port", 0, "only to this port, of the backend or the VIP")
	f.StringVar((*string)(&w.filter.Protocol), "protocol", "", "only tcp or udp")
	// compact is a format of these two alone.
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(flowFormats, c.output) {
			return usage(cmd, "--output %q is none of %s", c.output, strings.Join(flowFormats, ", "))
		}
		return nil
	}
}

func (w *flowWatch) check(cmd *cobra.Command) error {
	if w.period <= 0 {
		return usage(cmd, "--for %s is not more than 0", w.period)
	}
	if err := w.filter.Validate(); err != nil {
		return usage(cmd, "--%v", err)
	}
	return nil
}

func (c *cli) flowsCommand() *cobra.Command {
	var w flowWatch
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Watch who talks to whom on this node",
		Long: `Watch the TCP connections and UDP exchanges of this node, with names: who
began it and with whom, through which VIP, what became of it. A flow is shown
when it ends, and when it has been open for a second. The kernel is looked at only
while this command runs, so what was before is not known; what comes faster than
the node can tell is counted at the end.

Verdicts: forwarded, pending (no answer so far), refused, unanswered, unsent (no
route), denied (by the packet filter).`,
		Example: `  weir flows
  weir flows -f --to app=/shop/web
  weir flows -f --from zone=public --verdict denied
  weir flows --for 30s --vip web.shop -o json`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(cmd); err != nil {
				return err
			}
			agent, err := c.client()
			if err != nil {
				return err
			}
			return c.watchFlows(cmd.Context(), w, agent.Flows, c.flowTable)
		},
	}
	w.flags(c, cmd)
	cmd.Flags().StringVar((*string)(&w.filter.Verdict), "verdict", "", "only with this verdict")
	cmd.Flags().StringVar(&w.filter.VIP, "vip", "", "only through this VIP: a name such as web.shop, or its address")
	return cmd
}

// watchFlows shows each line as it comes, or all together at the end.
func (c *cli) watchFlows(ctx context.Context, w flowWatch, watch func(context.Context, api.FlowFilter, func(api.FlowLine) error) error, table func(*page, []api.FlowLine)) error {
	if !w.follow {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, w.period)
		defer stop()
	}
	var kept []api.FlowLine
	var lost api.FlowsLost
	err := watch(ctx, w.filter, func(line api.FlowLine) error {
		switch {
		case line.Missing != nil:
			fmt.Fprintln(c.stderr, "weir: this kernel does not show", strings.Join(line.Missing, "; "))
		case line.Lost != nil:
			lost = *line.Lost
		case !w.follow && c.output == "table":
			kept = append(kept, line)
		default:
			return c.showLine(line)
		}
		return nil
	})
	if !w.follow && c.output == "table" {
		if err := c.print(nil, func(p *page) { table(p, kept) }); err != nil {
			return err
		}
	}
	if lost != (api.FlowsLost{}) {
		fmt.Fprintf(c.stderr, "weir: not shown, because too much came: %s, %s, %s, %s; narrower filters help against the last alone\n",
			plural(int(lost.Flows), "flow"), plural(int(lost.Drops), "drop"), plural(int(lost.Ring), "event"), plural(int(lost.Reader), "line"))
	}
	return err
}

func (c *cli) showLine(line api.FlowLine) error {
	text := ""
	switch {
	case c.output == "json":
		var value any = line.Flow
		if line.Drop != nil {
			value = line.Drop
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		text = string(raw)
	case line.Flow != nil:
		text = flowLine(line.Flow)
	case line.Drop != nil:
		text = dropLine(line.Drop)
	}
	if _, err := fmt.Fprintln(c.stdout, text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func (c *cli) flowTable(p *page, lines []api.FlowLine) {
	p.row("BEGAN", "VERDICT", "PROTOCOL", "FROM", "TO", "VIP", "DURATION", "SENT", "RECEIVED", "RETRANSMITS", "RTT", "WHY")
	for _, line := range lines {
		f := line.Flow
		if f == nil {
			continue
		}
		p.row(f.Began.Local().Format(time.TimeOnly), f.Verdict, f.Protocol, endText(f.From), endText(f.To), vipText(f), lasting(f), amount(f, f.Sent), amount(f, f.Received), f.Retransmits, orDash(roundTrip(f)), f.Reason)
	}
}

// flowLine is a flow in one line.
func flowLine(f *api.Flow) string {
	text := fmt.Sprintf("%s  %-10s %s %s → %s", f.Began.Local().Format("15:04:05.000"), f.Verdict, f.Protocol, endText(f.From), endText(f.To))
	if f.VIP.IsValid() {
		text += " through " + vipText(f)
	}
	if f.Side != "" {
		text += fmt.Sprintf("  %s, sent %s, received %s", lasting(f), amount(f, f.Sent), amount(f, f.Received))
	}
	if f.Retransmits > 0 {
		text += ", " + plural(f.Retransmits, "retransmit")
	}
	if f.RTT > 0 {
		text += ", rtt " + roundTrip(f)
	}
	if f.Reason != "" {
		text += "  " + f.Reason
	}
	return text
}

func vipText(f *api.Flow) string {
	switch {
	case !f.VIP.IsValid():
		return "-"
	case f.Service == "":
		return f.VIP.String()
	}
	return f.Service + " " + f.VIP.String()
}

// lasting is how long it took; one that is open goes on.
func lasting(f *api.Flow) string {
	d := f.Duration.Std()
	switch {
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(100 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	if f.Open {
		return d.String() + "+"
	}
	return d.String()
}

// amount of bytes; of open TCP it is not known.
func amount(f *api.Flow, bytes uint64) string {
	if f.Open && f.Protocol == api.TCP {
		return "?"
	}
	return fmt.Sprint(bytes)
}

func roundTrip(f *api.Flow) string {
	if f.RTT == 0 {
		return ""
	}
	return f.RTT.Std().Round(time.Microsecond).String()
}

// endText is whose an end is, its process first.
func endText(e api.FlowEnd) string {
	is := e.ZoneIdentity
	is.Apps = append(slices.Clone(is.Apps), e.Tasks...)
	text := whose(e.Address, is)
	if !e.Address.IsValid() {
		text = "(" + orDash(list(is.Nodes)) + ")"
	}
	switch {
	case e.Process != 0 && e.Command != "":
		return fmt.Sprintf("%s[%d] %s", e.Command, e.Process, text)
	case e.Process != 0:
		return fmt.Sprintf("[%d] %s", e.Process, text)
	}
	return text
}
