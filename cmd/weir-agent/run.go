package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/version"
)

// run starts the agent, tells systemd when it is ready and feeds its watchdog.
func run(ctx context.Context, config agent.Config, level slog.Level) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	for _, dir := range []string{config.DataDir, config.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	log.Info("starting", "version", version.String(), "node", config.Node.Name)
	a, err := agent.New(agent.Options{Config: config, Log: log, Ready: func() {
		log.Info("ready")
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	}})
	if err != nil {
		return err
	}
	go feedWatchdog(ctx, a)
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
