package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/testenv"
)

func (l *lab) apply() *cobra.Command {
	return &cobra.Command{
		Use:   "apply [FILE | FOLDER]...",
		Short: "Make documents so by the controllers of a joined lab; without a file, those of the lab's state",
		Example: `  weir-lab apply
  weir-lab apply web.yaml`,
		Args: arguments(0, -1, "takes files"),
		RunE: func(cmd *cobra.Command, args []string) error {
			up, err := l.open()
			if err != nil {
				return err
			}
			if !up.Spec.Joined() {
				return fmt.Errorf("%w: lab %q has no controllers; its agents watch %s themselves", errUsage, up.Spec.Name, up.Spec.State)
			}
			if len(args) == 0 {
				args = []string{up.Spec.State}
			}
			var objects []api.Object
			for _, path := range args {
				read, err := testenv.ReadDocuments(path)
				if err != nil {
					return err
				}
				objects = append(objects, read...)
			}
			revision, err := up.Apply(cmd.Context(), objects...)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d documents are wanted since revision %d\n", len(objects), revision)
			return nil
		},
	}
}
