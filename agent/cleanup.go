package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/answers"
	"github.com/weirproject/weir/dataplane/container"
	"github.com/weirproject/weir/dataplane/deliver"
	"github.com/weirproject/weir/dataplane/edge"
	"github.com/weirproject/weir/dataplane/ipvs"
	"github.com/weirproject/weir/dataplane/link"
	"github.com/weirproject/weir/dataplane/program"
)

// Cleanup removes every kernel object that bears a mark of ours, and the
// socket. It refuses while an agent runs. What it removed is told in words.
func Cleanup(c Config) (removed []string, err error) {
	unlock, err := lock(c.RunDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var faults []error
	for name, cleanup := range map[string]func(string) (int, error){"edge": edge.Cleanup, "deliver": deliver.Cleanup, "answers": answers.Cleanup} {
		dir := filepath.Join(dataplane.PinRoot, name)
		if n, err := cleanup(dir); err != nil {
			faults = append(faults, fmt.Errorf("remove the packet programs below %s: %w", dir, err))
		} else if n > 0 {
			removed = append(removed, fmt.Sprintf("%d pinned eBPF objects below %s", n, dir))
		}
	}
	if n, err := program.Cleanup(dataplane.PinRoot); err != nil {
		faults = append(faults, fmt.Errorf("remove eBPF programs and maps: %w", err))
	} else if n > 0 {
		removed = append(removed, fmt.Sprintf("%d pinned eBPF objects below %s", n, dataplane.PinRoot))
	}
	if n, err := ipvs.Cleanup(context.Background(), ipvs.CleanupOptions{Ranges: c.ranges(), SysctlFile: filepath.Join(c.DataDir, sysctlFile)}); err != nil {
		faults = append(faults, fmt.Errorf("remove IPVS services: %w", err))
	} else if n > 0 {
		removed = append(removed, fmt.Sprintf("%d objects of IPVS", n))
	}
	if found, err := cleanFilter(context.Background(), nftablesFilter); err != nil {
		faults = append(faults, fmt.Errorf("remove the nftables table: %w", err))
	} else if found {
		removed = append(removed, "nftables table inet "+dataplane.TableName)
	}
	if found, err := cleanFilter(context.Background(), iptablesFilter); err != nil {
		faults = append(faults, fmt.Errorf("remove the iptables chains and sets: %w", err))
	} else if found {
		removed = append(removed, "iptables chains "+dataplane.ChainPrefix+"*, and sets "+dataplane.SetPrefix4+"* and "+dataplane.SetPrefix6+"*")
	}
	if n, err := link.Cleanup(); err != nil {
		faults = append(faults, err)
	} else if n > 0 {
		removed = append(removed, fmt.Sprintf("%d addresses on lo", n))
	}
	if n, err := container.Cleanup(); err != nil {
		faults = append(faults, fmt.Errorf("remove networks of containers: %w", err))
	} else if n > 0 {
		removed = append(removed, fmt.Sprintf("%d objects of networks of containers", n))
	}
	if hook := c.VIP.Edge.Hook; hook != "" {
		if _, err := os.Stat(hook); err == nil {
			faults = append(faults, os.RemoveAll(hook))
			removed = append(removed, "the files for routing daemons in "+hook)
		}
	}
	if told, err := restoreHost(c); err != nil {
		faults = append(faults, err)
	} else if told != "" {
		removed = append(removed, told)
	}
	os.Remove(c.handoverPath())
	socket := filepath.Join(c.RunDir, "agent.sock")
	if os.Remove(socket) == nil {
		removed = append(removed, socket)
	}
	return removed, errors.Join(faults...)
}
