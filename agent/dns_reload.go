package agent

import (
	"context"
	"path/filepath"
	"reflect"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/document"
)

// hotDNS is a configuration with the keys of another that change without a
// restart: whom the proxy asks, and who may ask it.
func hotDNS(c, from DNSConfig) DNSConfig {
	c.Upstreams, c.Forward, c.Access, c.Transfer = from.Upstreams, from.Forward, from.Access, from.Transfer
	c.Kernel, c.KernelLo = from.Kernel, from.KernelLo
	return c
}

// watchConfig takes the agent's own file over whenever it changes, until ctx
// ends.
func (a *Agent) watchConfig(ctx context.Context) error {
	if a.reread == nil || a.configFile == "" {
		<-ctx.Done()
		return nil
	}
	known := stateOfFile(a.configFile)
	return watchFolders(ctx, a.log, []string{filepath.Dir(a.configFile)}, func() {
		if now := stateOfFile(a.configFile); now != known {
			known = now
			a.Reload()
		}
	})
}

// Reload reads the configuration again and takes over what can change without a
// restart. When it cannot be, what was before stays, and the status says why.
func (a *Agent) Reload() {
	if a.reread == nil {
		return
	}
	c, err := a.reread()
	if err == nil {
		err = a.dns.reload(c)
	}
	a.refuseConfig(err)
	a.poke()
}

// refuseConfig keeps why the file was not taken over; nil when it was.
func (a *Agent) refuseConfig(err error) {
	var refused []api.Refusal
	for _, e := range document.Errors(err) {
		file := e.File
		if file == "" {
			file = a.configFile
		}
		refused = append(refused, api.Refusal{File: file, Line: e.Line, Column: e.Column, Field: e.Field, Reason: e.Reason, Since: time.Now()})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(refused) > 0 {
		a.log.Error("configuration refused; the last good one stays in force", "file", a.configFile, "error", err)
	} else if len(a.refusedConfig) > 0 {
		a.log.Info("configuration is good again", "file", a.configFile)
	}
	a.refusedConfig = refused
}

// reload takes over another configuration's hot keys.
func (d *dnsComponent) reload(c Config) error {
	if d.proxy == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.config
	d.config = hotDNS(d.config, c.DNS)
	if reflect.DeepEqual(before, d.config) {
		d.noteRestart(c)
		return nil
	}
	if err := d.proxy.SetForwarding(d.forwarding()); err != nil {
		d.config = before
		return err
	}
	d.noteRestart(c)
	d.agent.log.Info("configuration taken over", "component", "dns", "zones", len(d.forwarding().Zones))
	return nil
}

// noteRestart tells what the new configuration wants beyond the hot keys. It
// wants mu held.
func (d *dnsComponent) noteRestart(c Config) {
	now := c
	now.DNS = hotDNS(now.DNS, d.loaded.DNS)
	needs := !reflect.DeepEqual(now, d.loaded)
	if needs && !d.needsRestart {
		d.agent.log.Warn("configuration has changes that need a restart", "file", d.agent.configFile)
	}
	d.needsRestart = needs
}
