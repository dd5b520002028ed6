package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/document"
	"github.com/weirproject/weir/zones"
	"github.com/weirproject/weir/zones/policyfile"
)

const stateHelp = "file or folder with the state's documents, instead of the agent's; may be given several times"

func (c *cli) zoneCheckCommand() *cobra.Command {
	var state []string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Show what is wrong with a policy's file, and run its tests",
		Long: `Show what is wrong with a policy's file: syntax and unknown names with their
place, tests that fail, and, as warnings, zones that are empty and rules that
change nothing. FILE is - for standard input.

What the names stand for is the agent's state, or that of --state. Where there is
neither, the file is checked alone: its tests are not run.

Exit status: 0 it can be enforced, 1 it has faults, 2 wrong usage.`,
		Example: "  weir zone check policy.yaml\n  weir zone check policy.yaml --state examples/zones/fleet.yaml",
		Args:    arguments(1, 1, "one: FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			found, err := c.check(cmd.Context(), args[0], text, state)
			if err != nil {
				return err
			}
			if err := c.print(found, func(p *page) { findingsPage(p, found) }); err != nil {
				return err
			}
			if n := len(slices.DeleteFunc(slices.Clone(found), func(f api.ZoneFinding) bool { return f.Warning })); n > 0 {
				return fmt.Errorf("the policy has %s", plural(n, "fault"))
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&state, "state", nil, stateHelp)
	return cmd
}

func findingsPage(p *page, found []api.ZoneFinding) {
	for _, f := range found {
		text := refusal(api.Refusal{File: f.File, Line: f.Line, Column: f.Column, Field: f.Field, Reason: f.Reason})
		if f.Warning {
			text = "warning: " + text
		}
		p.line(text)
	}
	if len(found) == 0 {
		p.line("nothing is wrong with it")
	}
}

func (c *cli) readFile(name string) (text []byte, err error) {
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(os.Stdin, document.MaxSize+1))
	} else {
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	return text, nil
}

// check asks the agent, or does without one.
func (c *cli) check(ctx context.Context, name string, text []byte, state []string) ([]api.ZoneFinding, error) {
	if len(state) > 0 {
		known, _, err := readState(state)
		if err != nil {
			return nil, err
		}
		f, err := policyfile.Parse(name, text)
		if err != nil {
			return policyfile.Findings(err), nil
		}
		return append([]api.ZoneFinding{}, f.Check(zones.Bind(f.Policy, known, c.now()))...), nil
	}
	agent, err := c.client()
	if err != nil {
		return nil, err
	}
	found, err := agent.ZoneCheck(ctx, api.ZonePolicyFile{File: name, Text: string(text)})
	var answered *client.Problem
	if err == nil || errors.As(err, &answered) || ctx.Err() != nil {
		return found, err
	}
	fmt.Fprintf(c.stderr, "weir: %v\nweir: the file is checked alone; with --state its tests are run too\n", err)
	f, err := policyfile.Parse(name, text)
	if err != nil {
		return policyfile.Findings(err), nil
	}
	return append([]api.ZoneFinding{}, f.Names(c.now())...), nil
}

// readState reads documents as an agent would, the policy among them.
func readState(paths []string) (s zones.State, policy *api.Policy, err error) {
	var faults []error
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			files = nil
			for _, suffix := range []string{"yaml", "yml", "json"} {
				more, _ := filepath.Glob(filepath.Join(path, "[^.]*."+suffix))
				files = append(files, more...)
			}
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				faults = append(faults, fmt.Errorf("read the state: %w", err))
				continue
			}
			documents, err := document.Parse(file, text)
			faults = append(faults, err)
			for _, d := range documents {
				switch o := d.Object.(type) {
				case *api.Node:
					s.Nodes = append(s.Nodes, *o)
				case *api.Service:
					s.Services = append(s.Services, *o)
				case *api.Policy:
					policy = o
				}
			}
		}
	}
	slices.SortFunc(s.Nodes, func(a, b api.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Services, func(a, b api.Service) int { return strings.Compare(a.Key(), b.Key()) })
	return s, policy, errors.Join(faults...)
}

func (c *cli) zoneDiffCommand() *cobra.Command {
	var state []string
	against := ""
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show which flows a policy would open and close",
		Long: `Show which flows a policy would open (+) and close (-), compared to the one in
force. What the two mean is compared, not their texts: addresses and ports are
exact; rates and logs are no part of it. Without an agent, give --against, or
--state with a policy among its documents.`,
		Example: "  weir zone diff policy.yaml\n  weir zone diff new.yaml --against old.yaml --state examples/zones/fleet.yaml",
		Args:    arguments(1, 1, "one: FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := c.readFile(args[0])
			if err != nil {
				return err
			}
			d, err := c.diff(cmd.Context(), api.ZonePolicyFile{File: args[0], Text: string(text)}, against, state)
			if err != nil {
				return err
			}
			return c.print(d, func(p *page) { diffPage(p, d) })
		},
	}
	cmd.Flags().StringArrayVar(&state, "state", nil, stateHelp)
	cmd.Flags().StringVar(&against, "against", "", "file with the policy to compare with, instead of the one in force")
	return cmd
}

func (c *cli) diff(ctx context.Context, file api.ZonePolicyFile, against string, state []string) (d api.ZoneDiff, err error) {
	if against == "" && len(state) == 0 {
		agent, err := c.client()
		if err != nil {
			return d, err
		}
		return agent.ZoneDiff(ctx, file)
	}
	known, old, err := readState(state)
	if err != nil {
		return d, err
	}
	if against != "" {
		text, err := c.readFile(against)
		if err != nil {
			return d, err
		}
		f, err := policyfile.Parse(against, text)
		if err != nil {
			return d, err
		}
		old = f.Policy
	}
	f, err := policyfile.Parse(file.File, []byte(file.Text))
	if err != nil {
		return d, err
	}
	return policyfile.Diff(zones.Bind(old, known, c.now()), zones.Bind(f.Policy, known, c.now())), nil
}
