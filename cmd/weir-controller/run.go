package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/weirproject/weir/controller"
	"github.com/weirproject/weir/controller/members"
	"github.com/weirproject/weir/version"
)

func runCommand(flags *configFlags) *cobra.Command {
	var dev bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Be a controller, after init or join",
		Long: `Be a controller, after init or join. With --dev everything is in memory and gone
at the end, and nothing is needed before: for a trial.`,
		Example: "  weir-controller run\n  weir-controller run --dev --listen 127.0.0.1:8443",
		Args:    arguments(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			conf, o, err := flags.options()
			if err != nil {
				return err
			}
			o.Log.Info("starting", "version", version.String())
			open := members.Open
			if dev {
				open = members.OpenInMemory
			}
			m, err := open(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, m.Close()) }()
			if dev {
				if err := welcome(cmd.Context(), cmd.OutOrStdout(), m, o, m.ClusterID); err != nil {
					return err
				}
			}
			return serve(cmd.Context(), conf, o, m)
		},
	}
	cmd.Flags().BoolVar(&dev, "dev", false, "keep everything in memory")
	return cmd
}

// serve is the controller until ctx ends.
func serve(ctx context.Context, conf config, o members.Options, m *members.Member) error {
	listener, err := net.Listen("tcp", conf.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	names := controller.DefaultNames()
	names.Domain, names.Aliases = conf.DNS.Domain, conf.DNS.Aliases
	c, err := controller.New(controller.Options{
		Member: m, Listener: listener, Version: version.String(), Range: conf.VIP.Range, Range6: conf.VIP.Range6, Names: names, Log: o.Log,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	o.Log.Info("ready", "name", m.Name, "cluster", m.ClusterID, "listen", listener.Addr().String(), "url", o.URL)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	return c.Run(ctx)
}
