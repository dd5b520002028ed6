package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/zones"
	"github.com/weirproject/weir/zones/policyfile"
)

func (c *cli) zoneMatrixCommand() *cobra.Command {
	var state []string
	file := ""
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show what is open between every two zones",
		Long: `Show what is open between every two zones, from those on the left to those above:
as text, or with -o dot, svg, html or json. With --file it is about another
policy than the one in force, with the state of --state.`,
		Example: "  weir zone matrix\n  weir zone matrix -o svg > zones.svg\n  weir zone matrix --file policy.yaml --state examples/zones/fleet.yaml",
		Args:    arguments(0, 0, ""),
		// It has formats of its own.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.output == "table" {
				c.output = "text"
			}
			if !slices.Contains(zones.MatrixFormats, c.output) {
				return usage(cmd, "--output %q is none of %s", c.output, strings.Join(zones.MatrixFormats, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := c.matrix(cmd, file, state)
			if err != nil {
				return err
			}
			if _, err := c.stdout.Write(text); err != nil {
				return fmt.Errorf("write the result: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file with the policy, instead of the one in force")
	cmd.Flags().StringArrayVar(&state, "state", nil, stateHelp)
	return cmd
}

func (c *cli) matrix(cmd *cobra.Command, file string, state []string) ([]byte, error) {
	if file == "" && len(state) == 0 {
		agent, err := c.client()
		if err != nil {
			return nil, err
		}
		return agent.ZoneMatrix(cmd.Context(), c.output)
	}
	known, policy, err := readState(state)
	if err != nil {
		return nil, err
	}
	if file != "" {
		text, err := c.readFile(file)
		if err != nil {
			return nil, err
		}
		f, err := policyfile.Parse(file, text)
		if err != nil {
			return nil, err
		}
		policy = f.Policy
	}
	if policy == nil {
		return nil, usage(cmd, "there is no policy in %s: give --file", strings.Join(state, ", "))
	}
	text, _, err := zones.Bind(policy, known, c.now()).Matrix().Draw(c.output)
	return text, err
}
