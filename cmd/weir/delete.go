package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) deleteCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:     "delete KIND KEY | -f FILE",
		Short:   "Delete the cluster's objects",
		Long:    `Delete one of the cluster's objects, or with -f those that documents name, all or none.`,
		Example: "  weir delete service web.shop\n  weir delete -f old.yaml",
		Args:    arguments(0, 2, "KIND and KEY, or -f FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 2) == (len(files) > 0) || len(args) == 1 {
				return usage(cmd, "give KIND and KEY, or -f FILE")
			}
			d, asked := &documents{}, api.Apply{}
			if len(args) == 2 {
				asked.Objects = []api.ApplyObject{{Kind: args[0], Key: args[1], Delete: true}}
			} else {
				var err error
				if d, err = c.readDocuments(files); err != nil {
					return err
				}
				for _, one := range d.all {
					asked.Objects = append(asked.Objects, api.ApplyObject{Kind: one.Object.Kind(), Key: keyOf(one.Object), Delete: true})
				}
			}
			cluster, err := c.cluster()
			if err != nil {
				return err
			}
			defer cluster.Close()
			applied, err := cluster.Apply(cmd.Context(), asked)
			if err != nil {
				return d.locate(err)
			}
			return c.print(applied, func(p *page) {
				for _, change := range applied.Changes {
					p.line(fmt.Sprintf("%s/%s %s", change.Kind, change.Key, change.Action))
				}
			})
		},
	}
	filesFlag(cmd, &files)
	return cmd
}
