package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/version"
)

// run starts the agent, tells systemd when it is ready and feeds its watchdog.
func run(ctx context.Context, config agent.Config, flags *configFlags, takeOver bool) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: flags.logLevel}))
	for _, dir := range []string{config.DataDir, config.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	log.Info("starting", "version", version.String(), "node", config.Node.Name)
	var a *agent.Agent
	var err error
	a, err = agent.New(agent.Options{
		Config: config, Log: log, ConfigFile: flags.file, Reread: flags.load,
		TakeOver: takeOver, Sockets: activation.Files(true), KeepSockets: keeper(),
		Ready: func() {
			if err := giveUpPrivileges(a.LoadsModules()); err != nil {
				log.Warn("the agent keeps every privilege that it was started with", "error", err)
			}
			log.Info("ready")
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		},
	})
	if err != nil {
		return err
	}
	go feedWatchdog(ctx, a)
	go reloadOnHangup(ctx, a)
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	return a.Run(ctx)
}

// feedWatchdog reports to systemd for as long as the reconcilers go round.
func feedWatchdog(ctx context.Context, a *agent.Agent) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if a.Alive(interval) {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}
}

// reloadOnHangup takes the configuration's file over at every SIGHUP.
func reloadOnHangup(ctx context.Context, a *agent.Agent) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			a.Reload()
		}
	}
}

// socketName is what our sockets are called in systemd's store.
const socketName = "weir-dns"

// keeper has systemd keep sockets, in place of those that it kept before, so that
// what comes between two agents, even after a crash, waits in them. nil without
// systemd, or when the unit has no room for them.
func keeper() func([]*os.File) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if room := os.Getenv("FDSTORE"); path == "" || room == "0" {
		return nil
	}
	return func(files []*os.File) error {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("FDSTOREREMOVE=1\nFDNAME=" + socketName)); err != nil {
			return err
		}
		for len(files) > 0 {
			n := min(len(files), 200) // the kernel passes 253 at once
			if err := agent.SendFiles(conn, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+socketName), files[:n]); err != nil {
				return err
			}
			files = files[n:]
		}
		return nil
	}
}
