package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) nodeCommand() *cobra.Command {
	return c.noun("node", "The nodes of the cluster",
		c.nodeListCommand(), c.nodeShowCommand(), c.nodeDrainCommand(true), c.nodeDrainCommand(false), c.nodeRemoveCommand())
}

func (c *cli) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the nodes and how far behind each is",
		Long: `List the nodes: their health, and how many changes of the wanted state each has
not applied yet, and for how long.`,
		Example: "  weir node list", Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			all, err := cluster.Nodes(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("NAME", "ADDRESS", "ROLE", "ZONE", "STATE", "APPLIED", "BEHIND", "CONTROLLER", "VERSION")
				for _, n := range all.Nodes {
					p.row(n.Node.Name, firstOf(n.Node), n.Node.EffectiveRole(), orDash(n.Node.Zone), stateOf(n), n.Applied, behind(n), orDash(n.Controller), orDash(n.Version))
				}
				if len(all.Unreached) > 0 {
					p.line("")
					p.line("not reached: " + strings.Join(all.Unreached, ", ") + "; what these know of their nodes is left out")
				}
			})
		},
	}
}

func firstOf(n api.Node) string {
	if len(n.Addresses) == 0 {
		return "-"
	}
	return n.Addresses[0].String()
}

// stateOf is a node's state in a word or two.
func stateOf(n api.NodeState) string {
	state := "no agent"
	switch {
	case n.Health == api.NodeSuspect || n.Health == api.NodeDead:
		state = string(n.Health)
	case n.Controller != "" && len(n.Problems) > 0:
		state = "degraded"
	case n.Controller != "":
		state = "ready"
	case n.ID == "":
		state = "not joined"
	}
	if n.Node.Draining {
		state += ", draining"
	}
	return state
}

// behind is a node's lag; nothing is known of one without a stream.
func behind(n api.NodeState) string {
	switch {
	case n.Controller == "":
		return "-"
	case n.Behind == 0:
		return "0"
	}
	return fmt.Sprintf("%d for %s", n.Behind, n.Lag.Std().Round(time.Millisecond))
}

func (c *cli) nodeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one node", Example: "  weir node show a1", Args: arguments(1, 1, "one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			n, err := cluster.Node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(n, func(p *page) { c.nodePage(p, n) })
		},
	}
}

func (c *cli) nodePage(p *page, n api.NodeState) {
	d := n.Node.Domain
	p.row("name", n.Node.Name)
	p.row("id", orDash(n.ID))
	p.row("state", stateOf(n))
	p.row("addresses", orDash(list(n.Node.Addresses)))
	p.row("role", n.Node.EffectiveRole())
	p.row("zone", orDash(n.Node.Zone))
	p.row("fault domain", fmt.Sprintf("%s / %s / %s", orDash(d.Region), orDash(d.Zone), orDash(d.Rack)))
	for _, name := range slices.Sorted(maps.Keys(n.Node.Attributes)) {
		p.row("attribute", name+"="+n.Node.Attributes[name])
	}
	p.row("cores", n.Node.Resources.CPUs)
	p.row("memory", fmt.Sprintf("%d MiB", n.Node.Resources.Memory>>20))
	p.row("controller", orDash(n.Controller))
	p.row("applied", fmt.Sprintf("%d of %d", n.Applied, n.Wanted))
	p.row("behind", behind(n))
	p.row("last word", c.ago(n.Seen))
	p.row("joined", c.ago(n.Joined))
	p.row("version", orDash(n.Version))
	for _, problem := range n.Problems {
		p.row("problem", problem)
	}
}

func (c *cli) nodeDrainCommand(draining bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain NAME", Short: "Give a node no new work, and move what it has elsewhere",
		Long:    `Give a node no new work, and move what it has elsewhere, until weir node undrain.`,
		Example: "  weir node drain a1", Args: arguments(1, 1, "one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			return cluster.DrainNode(cmd.Context(), args[0], draining)
		},
	}
	if !draining {
		cmd.Use, cmd.Short, cmd.Example = "undrain NAME", "Give a node work again", "  weir node undrain a1"
		cmd.Long = `Give a node work again after weir node drain.`
	}
	return cmd
}

func (c *cli) nodeRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a node out of the cluster",
		Long: `Take a node out of the cluster: its certificate is refused from now on, and the
others forget it. What its kernel does goes on until somebody cleans it up there
(weir-agent cleanup). With a new token it can join again.`,
		Example: "  weir node remove a1", Args: arguments(1, 1, "one: NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			return cluster.RemoveNode(cmd.Context(), args[0])
		},
	}
}
