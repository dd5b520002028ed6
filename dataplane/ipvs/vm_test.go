package ipvs

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/balancertest"
	"github.com/weirproject/weir/dataplane/ipvs/guard"
	"github.com/weirproject/weir/testenv/vm"
)

// modules that Debian's kernel has beside it. IPVS and its schedulers are not
// among the loaded ones: the balancer loads them itself.
var (
	loadedModules = []string{
		"veth", "dummy", "nf_tables", "nft_ct", "nft_chain_nat", "nft_nat", "nft_masq", "nft_fib_inet", "nft_reject_inet",
		"nf_conntrack_netlink", "tcp_diag", "udp_diag",
	}
	loadableModules = []string{"ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_wlc", "ip_vs_mh", "ip_vs_sh"}
)

func TestIPVSInVM(t *testing.T) {
	if !vm.Self(t, vm.Options{Modules: loadedModules, Loadable: loadableModules}) {
		return
	}
	balancertest.Run(t, balancertest.Options{
		New:     func(t *testing.T) dataplane.Balancer { return openForTest(t) },
		Cleanup: func() error { _, err := Cleanup(context.Background(), cleanupOptions()); return err },
		Left:    left,
		Damages: map[string]func(t *testing.T){
			"ipvsadm -C":                flush,
			"a destination is removed":  removeDestination,
			"the link is removed":       removeLink,
			"an address is removed":     removeRoute,
			"the packet rules are gone": removeRules,
			"a sysctl is set back":      setBackSysctl,
			"a foreign hand edits":      edit,
		},
		Own: map[string]func(t *testing.T){
			"what others serve stays and is not taken over": foreignStays,
			"the node's own addresses are refused":          ownAddressRefused,
			"what a crash left is removed":                  crashLeft,
			"others' port forwarding does not catch a VIP":  portForwarding,
			"a client may have a VIP as its source":         boundToVIP,
			"many services":                                 many,
		},
	})
}

func sysctlFile() string { return filepath.Join(os.TempDir(), "weir-ipvs-sysctls") }

func cleanupOptions() CleanupOptions {
	return CleanupOptions{Ranges: balancertest.Ranges(), SysctlFile: sysctlFile()}
}

func openForTest(t *testing.T) *Balancer {
	t.Helper()
	b, err := New(Options{SysctlFile: sysctlFile(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return b
}

// left lists what there is of ours.
func left(t *testing.T) (all []string) {
	t.Helper()
	if loaded() {
		k := openKernel(t)
		held, err := k.services()
		if err != nil {
			t.Fatal(err)
		}
		for v := range held {
			all = append(all, "ipvs service "+v.String())
		}
		for name, value := range map[string]string{"expire_nodest_conn": "0\n", "expire_quiescent_template": "0\n", "conntrack": "0\n"} {
			if now, err := os.ReadFile(filepath.Join(sysctlDir, name)); err != nil || string(now) != value {
				all = append(all, fmt.Sprintf("sysctl %s %s", name, now))
			}
		}
	}
	l, err := existingLink()
	if err != nil {
		t.Fatal(err)
	}
	if l.device != nil {
		all = append(all, "link")
	}
	for p := range l.routes {
		all = append(all, "route "+p.String())
	}
	if found, err := guard.Exists(); err != nil || found {
		all = append(all, fmt.Sprintf("nftables table, %v", err))
	}
	return all
}

func openKernel(t *testing.T) *socket {
	t.Helper()
	k, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}

func flush(t *testing.T) {
	k := openKernel(t)
	if _, err := k.request(cmdFlush, 0x4); err != nil { // NLM_F_ACK
		t.Fatal(err)
	}
}

var webVIP = virtual{At: netip.MustParseAddrPort("198.18.0.10:80")}

func removeDestination(t *testing.T) {
	err := openKernel(t).do(step{op: deleteDestination, at: webVIP, destination: netip.MustParseAddrPort("10.80.0.12:8080")})
	if err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T) {
	k := openKernel(t)
	for _, s := range []step{
		{op: editService, at: webVIP, service: &service{scheduler: "wlc", flags: svcPersistent, timeout: 7}},
		{op: editDestination, at: webVIP, destination: netip.MustParseAddrPort("10.80.0.12:8080"), weight: 9},
		{op: addDestination, at: webVIP, destination: netip.MustParseAddrPort("10.80.0.99:8080"), weight: 9},
		{op: addService, at: virtual{At: netip.MustParseAddrPort("198.18.0.10:2200")}, service: &service{scheduler: "rr"}},
	} {
		if err := k.do(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func removeLink(t *testing.T) {
	l, err := netlink.LinkByName(LinkName)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func removeRoute(t *testing.T) {
	l, err := existingLink()
	if err == nil {
		err = l.remove(balancertest.Ranges()[0])
	}
	if err != nil {
		t.Fatal(err)
	}
}

func removeRules(t *testing.T) {
	if _, err := guard.Cleanup(); err != nil {
		t.Fatal(err)
	}
}

func setBackSysctl(t *testing.T) {
	if err := os.WriteFile(filepath.Join(sysctlDir, "expire_nodest_conn"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}
