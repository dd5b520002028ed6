package agent

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/weirproject/weir/agent/health"
	"github.com/weirproject/weir/api"
)

// healthFile is what outlives the agent, but not the machine: after a boot no
// backend is known to be alive.
type healthFile struct {
	Boot    string          `json:"boot"`
	Results []health.Result `json:"results"`
}

func (a *Agent) healthPath() string { return filepath.Join(a.config.DataDir, "health.json") }

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// loadHealth returns the results of the agent that ran before on this boot, so
// that a restart takes no live backend out.
func (a *Agent) loadHealth() ([]health.Result, error) {
	var f healthFile
	found, err := load(a.healthPath(), &f)
	if err != nil || !found || f.Boot != bootID() {
		return nil, err
	}
	return f.Results, nil
}

func (a *Agent) saveHealth() error {
	return save(a.healthPath(), healthFile{Boot: bootID(), Results: a.health.Results()})
}

// healthTargets are the backends that this node checks: of a standalone agent,
// all.
func healthTargets(s *api.Snapshot) []health.Target {
	var targets []health.Target
	for _, service := range s.Services {
		if service.Health == nil {
			continue
		}
		for _, b := range service.Backends {
			targets = append(targets, health.Target{
				Service: service.Key(), Protocol: service.EffectiveProtocol(),
				Backend: b.Address, Check: service.Health.WithDefaults(),
			})
		}
	}
	return targets
}
