package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) getCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "get KIND [KEY]",
		Short: "Show the cluster's objects",
		Long: `Show the cluster's objects as they were declared: of a KIND (service, record, node,
policy, network), or one by its KEY, such as web.shop for a service, or
www/CNAME for a record. With -o yaml one object is a document that weir apply
takes. With -w it goes on and shows each change, one a line.`,
		Example: "  weir get service\n  weir get service web.shop -o yaml\n  weir get record -w",
		Args:    arguments(1, 2, "KIND and at most a KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return c.watchObjects(cmd, args)
			}
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			if len(args) == 2 {
				one, err := cluster.Object(cmd.Context(), args[0], args[1])
				if err != nil {
					return err
				}
				if c.output == "yaml" || c.output == "table" {
					return c.printDocument(one)
				}
				return c.print(one, nil)
			}
			all, err := cluster.Objects(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(all, func(p *page) {
				p.row("KIND", "KEY", "VERSION", "WHAT")
				for _, o := range all.Objects {
					p.row(o.Kind, o.Key, o.Version, summary(o))
				}
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with each change")
	return cmd
}

// printDocument writes an object as the document that it was.
func (c *cli) printDocument(o api.Stored) error {
	text, err := asYAML(o.Object)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "kind: %s\n%s", o.Kind, text)
	return err
}

// summary is an object in one phrase.
func summary(o api.Stored) string {
	switch o.Kind {
	case "service":
		var s api.Service
		if json.Unmarshal(o.Object, &s) == nil {
			return fmt.Sprintf("%s, %s", list(s.VIPs), plural(len(s.Backends), "backend"))
		}
	case "record":
		var r api.Record
		if json.Unmarshal(o.Object, &r) == nil {
			return list(r.Data)
		}
	case "node":
		var n api.Node
		if json.Unmarshal(o.Object, &n) == nil {
			text := list(n.Addresses)
			if n.Draining {
				text += " draining"
			}
			return orDash(text)
		}
	case "policy":
		var p api.Policy
		if json.Unmarshal(o.Object, &p) == nil {
			return plural(len(p.Zones), "zone") + ", " + plural(len(p.Rules), "rule")
		}
	}
	return "-"
}

// watchObjects shows each change until it is interrupted; a watch that is cut
// off goes on where it was.
func (c *cli) watchObjects(cmd *cobra.Command, args []string) error {
	cluster, err := c.cluster()
	if err != nil {
		return err
	}
	defer cluster.Close()
	key := ""
	if len(args) == 2 {
		key = args[1]
	}
	for after := uint64(0); ; {
		before := after
		err := cluster.Watch(cmd.Context(), args[0], after, func(e api.WatchEvent) error {
			after = e.Revision
			if e.Object == nil || key != "" && e.Object.Key != key && e.Object.Key != key+"/tcp" && e.Object.Key != key+"/udp" {
				return nil
			}
			return c.tellEvent(e)
		})
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case err != nil && after == before:
			return err
		case err != nil && errors.Is(err, errOutput):
			return err
		}
	}
}

// errOutput is of a result that nobody takes.
var errOutput = errors.New("write the result")

func (c *cli) tellEvent(e api.WatchEvent) error {
	var err error
	if c.output == "json" {
		err = json.NewEncoder(c.stdout).Encode(e)
	} else if e.Type == "delete" {
		_, err = fmt.Fprintf(c.stdout, "%d delete %s/%s\n", e.Revision, e.Object.Kind, e.Object.Key)
	} else {
		_, err = fmt.Fprintf(c.stdout, "%d %s %s/%s %s\n", e.Revision, e.Type, e.Object.Kind, e.Object.Key, oneLine(summary(*e.Object)))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}
