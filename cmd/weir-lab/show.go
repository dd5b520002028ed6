package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/testenv"
)

// output adds the flag -o and returns where its value goes.
func output(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("output", "o", "table", "table or json")
}

// print writes the value as JSON, or has table write it.
func print(cmd *cobra.Command, format string, value any, table func(io.Writer)) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		return encoder.Encode(value)
	case "table":
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		table(w)
		return w.Flush()
	default:
		return fmt.Errorf("%w: --output %q is neither table nor json", errUsage, format)
	}
}

// summary is a lab in list.
type summary struct {
	Name  string `json:"name"`
	State string `json:"state"` // up, degraded or incomplete
	Hosts int    `json:"hosts"`
	File  string `json:"file,omitempty"`
}

func (l *lab) list() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the labs that are up",
		Long: `List the labs that are up. A lab is degraded when a host is off or an agent is
not ready, and incomplete while it comes up or when "up" crashed.`,
		Example: "  weir-lab list -o json",
		Args:    arguments(0, 0, "takes no arguments"),
	}
	format := output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		names, err := testenv.Names(l.root)
		if err != nil {
			return err
		}
		labs := []summary{}
		for _, name := range names {
			labs = append(labs, l.summary(cmd, name))
		}
		return print(cmd, *format, labs, func(w io.Writer) {
			fmt.Fprintln(w, "LAB\tSTATE\tHOSTS\tFILE")
			for _, s := range labs {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", s.Name, s.State, s.Hosts, s.File)
			}
		})
	}
	return cmd
}

func (l *lab) summary(cmd *cobra.Command, name string) summary {
	s := summary{Name: name, State: "incomplete"}
	up, err := testenv.Open(l.root, name)
	if err != nil {
		return s
	}
	s.Hosts, s.File, s.State = len(up.Spec.Hosts), up.Spec.File, "up"
	status, err := up.Status(cmd.Context())
	if err != nil {
		s.State = "degraded"
	}
	for _, h := range status.Hosts {
		if h.State != testenv.HostUp && h.State != testenv.HostReady {
			s.State = "degraded"
		}
	}
	return s
}

func (l *lab) show() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show [NAME]",
		Short:   "Show a lab's hosts, what runs on them, and what is cut",
		Example: "  weir-lab show demo",
		Args:    arguments(0, 1, "takes one name at most"),
	}
	format := output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			l.name = args[0]
		}
		up, err := l.open()
		if err != nil {
			return err
		}
		status, err := up.Status(cmd.Context())
		if err != nil {
			return err
		}
		return print(cmd, *format, status, func(w io.Writer) { table(w, status) })
	}
	return cmd
}

func table(w io.Writer, s testenv.Status) {
	fmt.Fprintln(w, "HOST\tSTATE\tROLE\tZONE\tADDRESSES\tCOMMANDS")
	for _, h := range s.Hosts {
		var addresses, commands []string
		for _, i := range h.Interfaces {
			for _, a := range i.Addresses {
				addresses = append(addresses, i.Network+" "+a.Addr().String())
			}
		}
		for _, d := range h.Detached {
			commands = append(commands, d.Name)
			if !d.Running {
				commands[len(commands)-1] += " (ended)"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.State, dash(h.Role), dash(h.Zone),
			dash(strings.Join(addresses, ", ")), dash(strings.Join(commands, ", ")))
	}
	for _, c := range s.Cuts {
		fmt.Fprintf(w, "cut: nothing passes from %s to %s\n", c.From, c.To)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
