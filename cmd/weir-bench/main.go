// Command weir-bench measures virtual IPs beside what else one could use, how
// fast they change, and what breaks meanwhile; package testenv/bench does the
// work. It is for developers, needs root, and keeps all traffic in a lab of its
// own. What a run that was killed leaves behind, "weir-lab down --all" removes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/testenv/bench"
	"github.com/weirproject/weir/testenv/bench/load"
	"github.com/weirproject/weir/testenv/controllerbench"
	"github.com/weirproject/weir/testenv/dnsbench"
	"github.com/weirproject/weir/testenv/edgebench"
	"github.com/weirproject/weir/testenv/tracebench"
)

func main() {
	// The parts of a benchmark that are processes of their own are this binary.
	load.Main()
	bench.OwnerMain()
	dnsbench.Main()
	controllerbench.Main()
	tracebench.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "weir-bench:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// errUsage marks a wrong use of the command line: exit 2.
var errUsage = errors.New("wrong usage")

func usage(err error) error { return fmt.Errorf("%w: %w", errUsage, err) }

func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usage(err)
	}
	return nil
}

// report is what every kind of benchmark ends with.
type report interface {
	Markdown(w io.Writer) error
}

var errBroken = errors.New("connections broke: see the report")

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "weir-bench", Short: "Measure virtual IPs", SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	output := root.PersistentFlags().StringP("output", "o", "markdown", "format of the report: markdown or json")
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	show := func(r report, err error) error {
		write := func() error { return r.Markdown(os.Stdout) }
		if *output == "json" {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			write = func() error { return e.Encode(r) }
		}
		return errors.Join(err, write())
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if *output != "markdown" && *output != "json" {
			return usage(fmt.Errorf("--output=%s is not markdown or json", *output))
		}
		return nil
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(compareCommand(log, show), updateCommand(log, show), soakCommand(log, show), portsCommand(log, show), edgeCommand(log, show), zonesCommand(log, show), flowsCommand(show), dnsCommand(log, show), controllerCommand(log, show), scheduleCommand(show))
	return root
}

func compareCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := bench.Options{Log: log}
	var seconds float64
	c := &cobra.Command{
		Use: "compare", Short: "Rates and latencies of Weir and its peers beside the direct connection", Args: noArgs,
		Example: "  weir-bench compare --rounds=3 --seconds=1 --only=weir-many,connect",
		RunE: func(c *cobra.Command, _ []string) error {
			o.Each = time.Duration(seconds * float64(time.Second))
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := bench.Compare(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Rounds, "rounds", 7, "rounds of all variants")
	c.Flags().Float64Var(&seconds, "seconds", 2, "seconds of traffic for each variant and kind in a round")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "variants and kinds of traffic to measure (default all)")
	sizeFlags(c, &o)
	return c
}

func sizeFlags(c *cobra.Command, o *bench.Options) {
	c.Flags().IntVar(&o.Services, "services", 10000, "services of the larger table")
	c.Flags().IntVar(&o.Backends, "backends", 100, "backends of each service")
}

func updateCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := bench.Options{Log: log}
	var patience time.Duration
	c := &cobra.Command{
		Use: "update", Short: "Time and memory of loading and changing a table", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := bench.Update(c.Context(), o, patience)
			return show(r, err)
		},
	}
	c.Flags().DurationVar(&patience, "patience", 2*time.Minute, "for each step of a peer's tool")
	sizeFlags(c, &o)
	return c
}

func soakCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := bench.SoakOptions{Log: log}
	c := &cobra.Command{
		Use: "soak", Short: "Count what breaks while everything changes", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := bench.Soak(c.Context(), o)
			if err == nil && r.Broken() {
				err = errBroken
			}
			return show(r, err)
		},
	}
	c.Flags().DurationVar(&o.For, "for", 2*time.Minute, "how long")
	c.Flags().IntVar(&o.Rate, "rate", 2000, "new connections a second")
	c.Flags().IntVar(&o.Open, "open", 1000, "connections that stay open")
	c.Flags().IntVar(&o.Changes, "changes", 10000, "changes of backends")
	c.Flags().IntVar(&o.Kills, "kills", 20, "times that the balancer's process is killed")
	c.Flags().IntVar(&o.Migrations, "migrations", 100, "times that the maps are replaced, and the programs")
	c.Flags().Uint64Var(&o.Seed, "seed", 1, "of what happens when")
	return c
}

func portsCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := bench.PortsOptions{Log: log}
	c := &cobra.Command{
		Use: "ports", Short: "Use 64,000 source ports again and again, through one VIP and directly", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := bench.Ports(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().DurationVar(&o.For, "for", 5*time.Minute, "how long each side")
	c.Flags().IntVar(&o.Rate, "rate", 5000, "new connections a second")
	return c
}

func edgeCommand(log *slog.Logger, show func(report, error) error) *cobra.Command {
	o := edgebench.Options{Log: log}
	c := &cobra.Command{
		Use: "edge", Short: "Packets through an edge node, beside plain forwarding and nftables", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return usage(err)
			}
			r, err := edgebench.Run(c.Context(), o)
			return show(r, err)
		},
	}
	c.Flags().IntVar(&o.Rounds, "rounds", 7, "rounds of all ways")
	c.Flags().DurationVar(&o.Each, "each", 300*time.Millisecond, "of sending, for each way in a round")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "ways to measure besides plain forwarding (default all)")
	return c
}
