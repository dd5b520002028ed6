package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
)

func (c *cli) applyCommand() *cobra.Command {
	var files []string
	var dry bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the cluster's objects as documents say, all or none",
		Long: `Make the cluster's objects as documents say: services, records, nodes, the policy,
networks. All of them are checked together, and are written together or not at
all; what is wrong is told with file and line. Objects that no document has stay.`,
		Example: "  weir apply -f state.d/\n  weir apply -f web.yaml --dry-run\n  weir apply -f - < web.yaml",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			applied, err := c.apply(cmd, files, dry)
			if err != nil {
				return err
			}
			return c.print(applied, func(p *page) {
				for _, change := range applied.Changes {
					text := fmt.Sprintf("%s/%s %s", change.Kind, change.Key, change.Action)
					if applied.DryRun {
						text += " (dry run)"
					}
					p.line(text)
				}
			})
		},
	}
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only tell what would change")
	return cmd
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "file or folder of documents; - is the standard input; may be given several times")
}

// apply sends the documents of files.
func (c *cli) apply(cmd *cobra.Command, files []string, dry bool) (api.Applied, error) {
	if len(files) == 0 {
		return api.Applied{}, usage(cmd, "-f FILE is needed")
	}
	d, err := c.readDocuments(files)
	if err != nil {
		return api.Applied{}, err
	}
	asked, err := d.apply(dry)
	if err != nil {
		return api.Applied{}, err
	}
	cluster, err := c.cluster()
	if err != nil {
		return api.Applied{}, err
	}
	defer cluster.Close()
	applied, err := cluster.Apply(cmd.Context(), asked)
	return applied, d.locate(err)
}
