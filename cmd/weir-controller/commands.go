package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/members"
)

// storeWithin is how long a command waits for the store.
const storeWithin = 30 * time.Second

func initCommand(flags *configFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Begin a cluster with this controller",
		Long: `Begin a cluster with this controller: make its id, its certificate authority
and its store, and print the first tokens. Done again, it changes nothing and
prints new tokens.`,
		Example: "  weir-controller init --advertise https://10.80.0.2:8443",
		Args:    arguments(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, o, err := flags.options()
			if err != nil {
				return err
			}
			id, err := members.Init(o)
			if err != nil {
				return err
			}
			return attached(cmd.Context(), o, func(ctx context.Context, m *members.Member) error {
				return welcome(ctx, cmd.OutOrStdout(), m, o, id)
			})
		},
	}
}

// attached works on the store, by the controller that runs here or without one.
func attached(ctx context.Context, o members.Options, work func(context.Context, *members.Member) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	m, err := members.Attach(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return work(ctx, m)
}

// welcome prints how everybody gets in.
func welcome(ctx context.Context, out io.Writer, m *members.Member, o members.Options, id string) error {
	fmt.Fprintf(out, "cluster %s\n", id)
	for _, one := range []struct {
		request auth.TokenRequest
		text    string
	}{
		{auth.TokenRequest{Role: auth.RoleOperator, Uses: 1}, "\nLog in, once within 1 h:\n  weir login %s --token %s\n"},
		{auth.TokenRequest{Role: auth.RoleAgent}, "\nOn each node, within 1 h:\n  weir-agent join %s --token %s\n"},
		{auth.TokenRequest{Role: auth.RoleController}, "\nOn a second controller, once within 15 min:\n  weir-controller join %s --token %s\n"},
	} {
		token, err := m.Door.CreateToken(ctx, one.request)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, one.text, o.URL, token.Secret)
	}
	return nil
}

func joinCommand(flags *configFlags) *cobra.Command {
	var j members.JoinOptions
	cmd := &cobra.Command{
		Use:   "join URL",
		Short: "Make this a controller of the cluster of another one",
		Long: `Make this a controller of the cluster of another one, which must be running.
The token comes from weir-controller token --role controller there, is for one
controller, and names the cluster's authority: nothing is sent to anybody else.
The key of the certificate authority comes along. Start it with weir-controller
run after that.`,
		Example: "  weir-controller join https://10.80.0.2:8443 --token weir1.…",
		Args:    arguments(1, "the URL of a controller"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, o, err := flags.options()
			if err != nil {
				return err
			}
			if j.Token == "" {
				j.Token = os.Getenv("WEIR_CONTROLLER_TOKEN")
			}
			if j.Token == "" {
				return fmt.Errorf("%w: --token is needed", errUsage)
			}
			j.URL = args[0]
			id, err := members.Join(cmd.Context(), o, j)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "joined the cluster %s; start it: weir-controller run\n", id)
			return nil
		},
	}
	cmd.Flags().StringVar(&j.Token, "token", "", "token that lets this controller in (environment: WEIR_CONTROLLER_TOKEN, which no list of processes shows)")
	cmd.Flags().BoolVar(&j.Replace, "replace", false, "take the name of a controller that is gone")
	return cmd
}

func tokenCommand(flags *configFlags) *cobra.Command {
	var r auth.TokenRequest
	var role string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token on a controller's own machine, without logging in",
		Long: `Make a token on a controller's own machine, without logging in: for the first
operator, or when nobody can log in any more. Elsewhere it is weir token create.`,
		Example: "  weir-controller token --role operator --uses 1\n  weir-controller token --role agent --ttl 8h --uses 50",
		Args:    arguments(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, o, err := flags.options()
			if err != nil {
				return err
			}
			r.Role = auth.Role(role)
			return attached(cmd.Context(), o, func(ctx context.Context, m *members.Member) error {
				token, err := m.Door.CreateToken(ctx, r)
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), token.Secret)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", string(auth.RoleOperator), "agent, controller or operator")
	cmd.Flags().DurationVar(&r.TTL, "ttl", 0, "how long it lets in, such as 8h (default: 1h, 15m for controllers)")
	cmd.Flags().IntVar(&r.Uses, "uses", 0, "how often it lets in; 0: without a limit")
	cmd.Flags().StringVar(&r.Node, "node", "", "the only node that it lets in")
	return cmd
}

func backupCommand(flags *configFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a snapshot of the whole store to a new file",
		Long: `Write a snapshot of the whole store to a new file. The certificate authority is
in it, sealed: keep ca.key of the data folder too, elsewhere.`,
		Example: "  weir-controller backup /backup/weir.db",
		Args:    arguments(1, "a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, o, err := flags.options()
			if err != nil {
				return err
			}
			return attached(cmd.Context(), o, func(ctx context.Context, m *members.Member) (err error) {
				f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("back up: %w", err)
				}
				err = m.Backup(ctx, f)
				if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
					_ = os.Remove(args[0]) // a part is none
				}
				return err
			})
		},
	}
}

func restoreCommand(flags *configFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Make this the only controller of a cluster as a backup has it",
		Long: `Make this the only controller of a cluster as a backup has it: the same cluster
id, authority, tokens, addresses and documents. Nodes stay members and take the
whole state anew; other controllers must join anew. The store of the data folder
must be away, and ca.key of before be there (or --ca-key-file).`,
		Example: "  systemctl stop weir-controller && mv /var/lib/weir/controller/etcd /var/tmp/\n  weir-controller restore /backup/weir.db && systemctl start weir-controller",
		Args:    arguments(1, "a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, o, err := flags.options()
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), storeWithin)
			defer cancel()
			id, err := members.Restore(ctx, o, f)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "restored the cluster %s\n", id)
			}
			return err
		},
	}
}
