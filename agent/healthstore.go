package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/agent/drain"
	"github.com/weirproject/weir/agent/health"
	"github.com/weirproject/weir/agent/outlier"
	"github.com/weirproject/weir/vip"
)

// healthFile is what outlives the agent, but not the machine: after a boot no
// backend is known to be alive.
type healthFile struct {
	Boot    string          `json:"boot"`
	Results []health.Result `json:"results"`
	Drains  []drain.Start   `json:"drains,omitempty"`
}

func (a *Agent) dataPath(file string) string { return filepath.Join(a.config.DataDir, file) }

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// newBackends starts from what the agent that ran before on this boot has
// found out, so that a restart takes no live backend out and lets no drain
// begin anew.
func (a *Agent) newBackends() (*backends, error) {
	var f healthFile
	found, err := load(a.dataPath("health.json"), &f)
	if err != nil {
		a.log.Warn("kept health results discarded", "error", err)
	}
	if !found || f.Boot != bootID() {
		f = healthFile{}
	}
	b := &backends{
		drains: drain.New(f.Drains), outlier: outlier.New(outlier.Options{Log: a.log, Registerer: a.registry}),
		byHand: map[handDrain]bool{}, touched: map[vip.ServiceRef]bool{},
	}
	var byHand []handDrain
	if _, err := load(a.dataPath("drains.json"), &byHand); err != nil {
		return nil, fmt.Errorf("read the drains by hand: %w", err)
	}
	for _, d := range byHand {
		b.byHand[d] = true
	}
	b.health = health.New(health.Options{
		Log: a.log, Registerer: a.registry, Initial: f.Results,
		OnChange: func(t health.Target) {
			b.touch(t.Service, t.Protocol)
			a.unkept.Store(true)
			a.pokeStates()
		},
	})
	return b, nil
}

// keepBackends writes down what a restart must know, when it has changed.
func (a *Agent) keepBackends() {
	if !a.unkept.Swap(false) {
		return
	}
	f := healthFile{Boot: bootID(), Results: a.backends.health.Results(), Drains: a.backends.drains.Starts()}
	if err := save(a.dataPath("health.json"), f); err != nil {
		a.log.Warn("health results not kept", "error", err)
	}
}

// saveHandDrains keeps them over a restart and a boot, until they are undone.
func (a *Agent) saveHandDrains() error {
	if err := save(a.dataPath("drains.json"), a.backends.handDrains()); err != nil {
		return fmt.Errorf("keep the drains by hand: %w", err)
	}
	return nil
}

// namespaceCookie identifies the thread's network namespace, as eBPF programs
// see it.
func namespaceCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, errNoCookie
	}
	return cookie, nil
}
