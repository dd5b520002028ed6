package main

import (
	"github.com/spf13/cobra"

	"github.com/weirproject/weir/agent/executor/shim"
)

// shimCommands are what the agent starts for each task: the shim that holds it,
// and the stage that becomes it. Nobody else has a use for them.
func shimCommands() []*cobra.Command {
	return []*cobra.Command{
		{Use: shim.Command + " DIR", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return shim.Run(args[0]) }},
		{Use: shim.InitCommand, Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return shim.Init() }},
	}
}
