package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/balancertest"
	"github.com/weirproject/weir/testenv"
	"github.com/weirproject/weir/testenv/vm"
)

func TestPromisesOfABalancer(t *testing.T) {
	testenv.NeedBPF(t)
	if balancertest.Isolated(t) {
		keepPromises(t)
	}
}

func TestPromisesOfABalancerInVM(t *testing.T) {
	if vm.Self(t, vm.Options{Modules: []string{"veth", "tcp_diag", "udp_diag"}, Timeout: 4 * time.Minute}) {
		keepPromises(t)
	}
}

// keepPromises runs the suite of all balancers in this process's own cgroup.
func keepPromises(t *testing.T) {
	root, err := testenv.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(string(cgroups), "0::")
	own, _, _ = strings.Cut(own, "\n")
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	pins := filepath.Join(mount, "weir")
	balancertest.Run(t, balancertest.Options{
		New: func(t *testing.T) dataplane.Balancer {
			b, err := New(Options{PinDir: pins, Cgroup: filepath.Join(root, own)})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Cleanup: func() error { _, err := Cleanup(pins); return err },
		Left:    func(*testing.T) []string { all, _ := filepath.Glob(pins + "/*"); return all },
		Damages: map[string]func(t *testing.T){"the pins are removed": func(t *testing.T) {
			if _, err := Cleanup(pins); err != nil {
				t.Fatal(err)
			}
		}},
		Differs: map[string]string{
			"clients of other hosts are served":                    "their packets are the edge's",
			"ports that are not served are refused to other hosts": "their packets are the edge's",
		},
	})
}
