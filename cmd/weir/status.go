package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether this node is as wanted",
		Long: `Show whether this node is as wanted: revisions, components, repaired drift and
documents that were refused.

Exit status: 0 the node is right, 1 it is degraded (a document is refused, a
component failed or lags behind) or its agent does not answer, 2 wrong usage.`,
		Example: "  weir status\n  weir status -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent, err := c.client()
			if err != nil {
				return err
			}
			s, err := agent.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.print(s, func(p *page) { c.statusPage(p, s) }); err != nil {
				return err
			}
			return degraded(s)
		},
	}
}

func (c *cli) statusPage(p *page, s api.Status) {
	what := "role " + s.Node.EffectiveRole()
	if s.Node.Zone != "" {
		what = "zone " + s.Node.Zone + ", " + what
	}
	p.row("Node", fmt.Sprintf("%s (%s)", s.Node.Name, what))
	p.row("Addresses", orDash(list(s.Node.Addresses)))
	p.row("Agent", fmt.Sprintf("%s, started %s", s.Version, c.ago(s.Started)))
	if s.Wanted == 0 {
		p.row("Revision", "none yet: no whole state was read")
	} else {
		p.row("Revision", fmt.Sprintf("%d of %d applied", s.Revision, s.Wanted))
	}
	p.row("Source", orDash(s.Source))
	if len(s.Components) > 0 {
		p.line("")
		p.row("COMPONENT", "BACKEND", "REVISION", "REPAIRED", "APPLIED", "DETAIL")
	}
	for _, component := range s.Components {
		detail := component.Detail
		if component.Error != "" {
			detail = "error: " + component.Error
		}
		p.row(component.Name, orDash(component.Backend), component.Revision, component.Repaired, c.ago(component.Applied), detail)
	}
	if len(s.Refused) > 0 {
		p.line("")
		p.line("Refused; the last good state stays in force:")
	}
	for _, r := range s.Refused {
		p.line(fmt.Sprintf("  %s (%s)", refusal(r), c.ago(r.Since)))
	}
}

// refusal is file:line:column: field: reason, as far as each is known.
func refusal(r api.Refusal) string {
	place := r.File
	if r.Line > 0 {
		place += fmt.Sprintf(":%d", r.Line)
		if r.Column > 0 {
			place += fmt.Sprintf(":%d", r.Column)
		}
	}
	parts := []string{}
	for _, part := range []string{place, r.Field, oneLine(r.Reason)} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// degraded says in one line what is not right; nil when all is.
func degraded(s api.Status) error {
	var why []string
	if n := len(s.Refused); n > 0 {
		why = append(why, plural(n, "fault")+" in the state's files")
	}
	for _, component := range s.Components {
		if component.Error != "" {
			why = append(why, component.Name+" failed")
		}
	}
	switch {
	case s.Wanted == 0:
		why = append(why, "no whole state was read yet")
	case s.Revision != s.Wanted && len(why) == 0:
		why = append(why, fmt.Sprintf("revision %d is not applied yet", s.Wanted))
	}
	if len(why) == 0 {
		return nil
	}
	return errors.New("the node is degraded: " + strings.Join(why, ", "))
}
