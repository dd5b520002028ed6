package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/version"
)

// build is what "weir version" shows.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show which build of weir this is",
		Long:    "Show which build of weir this is. The agent's own version is in weir status.",
		Example: "  weir version\n  weir version -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			b := build{Version: version.String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			return c.print(b, func(p *page) { p.line(fmt.Sprintf("weir %s (%s, %s)", b.Version, b.Go, b.Platform)) })
		},
	}
}
