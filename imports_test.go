package weir

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/weirproject/weir/"

// mayImport says which of our packages each package may import, its tests
// aside. A new package is a decision: it gets a row.
var mayImport = map[string][]string{
	"api":                         {},
	"api/client":                  {"api", "api/trust"},
	"api/trust":                   {},
	"document":                    {"api"},
	"version":                     {},
	"bpf":                         {},
	"netspace":                    {},
	"dataplane":                   {"api"},
	"dataplane/balancertest":      {"api", "dataplane", "testenv"},
	"dataplane/internal/bulk":     {},
	"dataplane/internal/inet":     {},
	"dataplane/internal/pin":      {},
	"dataplane/internal/sinktest": {},
	"dataplane/internal/room":     {},
	"dataplane/answers":           {"dataplane", "dataplane/internal/bulk", "dataplane/internal/inet", "dataplane/internal/pin", "bpf"},
	"dataplane/deliver":           {"api", "dataplane", "dataplane/internal/bulk", "dataplane/internal/inet", "dataplane/internal/pin", "bpf"},
	"dataplane/edge":              {"api", "dataplane", "dataplane/internal/pin", "dataplane/internal/room", "bpf"},
	"dataplane/container":         {"api", "dataplane", "netspace"},
	"dataplane/ipvs":              {"api", "dataplane", "dataplane/ipvs/guard"},
	"dataplane/ipvs/guard":        {"dataplane"},
	"dataplane/link":              {"dataplane"},
	"dataplane/nft":               {"api", "dataplane", "dataplane/internal/ports", "dataplane/internal/verdict"},
	"dataplane/iptables":          {"api", "dataplane", "dataplane/internal/ports", "dataplane/internal/verdict", "netspace"},
	"dataplane/filtertest":        {"api", "dataplane", "dataplane/internal/verdict", "testenv", "zones"},
	"dataplane/internal/ports":    {"api"},
	"dataplane/internal/verdict":  {},
	"dataplane/trace":             {"api", "dataplane", "dataplane/internal/inet", "dataplane/internal/pin", "bpf"},
	"dataplane/program":           {"api", "dataplane", "dataplane/internal/bulk", "dataplane/internal/inet", "dataplane/internal/pin", "dataplane/internal/room", "bpf"},
	"vip":                         {"api", "dataplane"},
	"controller/store":            {},
	"controller/server":           {"api", "api/client", "api/trust", "controller/auth", "controller/hub", "controller/store", "dnsproxy", "vip", "wanted"},
	"controller/ipam":             {"api"},
	"controller/hub":              {"api", "controller/store"},
	"controller/apps":             {"api", "controller/deploy", "controller/hub", "controller/jobs", "controller/scheduler", "controller/store", "dnsproxy", "vip", "wanted"},
	"controller/marathon":         {"api", "api/client", "controller/apps", "controller/auth", "controller/deploy", "controller/store"},
	"controller/metronome":        {"api", "controller/apps", "controller/auth", "controller/jobs", "controller/store"},
	"controller":                  {"api", "controller/apps", "controller/auth", "controller/hub", "controller/ipam", "controller/marathon", "controller/members", "controller/metronome", "controller/monitor", "controller/server", "controller/store", "dnsproxy"},
	"controller/auth":             {"api", "api/trust", "controller/store"},
	"controller/members":          {"api", "api/client", "api/trust", "controller/auth", "controller/store", "version"},
	"controller/scheduler":        {"api"},
	"controller/deploy":           {"api", "controller/scheduler"},
	"controller/jobs":             {"api", "controller/scheduler"},
	"controller/monitor":          {"api"},
	"dnsproxy":                    {"api"},
	"zones":                       {"api", "dataplane"},
	"wanted":                      {"api", "dnsproxy", "vip", "zones"},
	"zones/policyfile":            {"api", "document", "zones"},
	"agent/drain":                 {"api"},
	"agent/ipam":                  {"api"},
	"agent/executor":              {"api", "agent/executor/shim", "agent/health", "netspace"},
	"agent/executor/cgroup":       {},
	"agent/executor/shim":         {"api", "agent/executor/cgroup"},
	"agent/executor/process":      {"agent/executor", "agent/executor/cgroup", "agent/executor/shim"},
	"agent/executor/container":    {"api", "agent/executor", "agent/executor/cgroup", "agent/executor/shim"},
	"agent/executor/docker":       {"api", "agent/executor", "agent/executor/cgroup"},
	"agent/executor/fake":         {"agent/executor"},
	"agent/health":                {"api"},
	"agent/outlier":               {"api"},
	"agent/owner":                 {},
	"agent/peers":                 {"api"},
	"agent/resolvconf":            {},
	"agent": {
		"api", "api/client", "document", "version", "dataplane", "dataplane/answers", "dataplane/deliver", "dataplane/edge", "dataplane/ipvs",
		"dataplane/container", "agent/ipam", "dataplane/link", "dataplane/nft", "dataplane/iptables", "dataplane/program", "dataplane/trace", "vip", "dnsproxy", "zones", "zones/policyfile",
		"agent/drain", "agent/executor", "agent/executor/container", "agent/executor/docker", "agent/executor/process", "agent/health", "agent/outlier", "agent/owner", "agent/peers", "agent/resolvconf", "api/trust", "wanted",
	},
	"testenv":                 {"api", "api/client", "api/trust", "document"},
	"testenv/manpage":         {},
	"testenv/vm":              {"testenv"},
	"testenv/bench":           {"api", "dataplane", "dataplane/program", "testenv", "testenv/bench/load"},
	"testenv/bench/load":      {},
	"testenv/edgebench":       {"api", "dataplane", "dataplane/edge", "testenv"},
	"testenv/tracebench":      {"dataplane/trace", "testenv"},
	"testenv/zonebench":       {"api", "dataplane", "dataplane/nft", "zones"},
	"testenv/dnsbench":        {"api", "dnsproxy"},
	"testenv/schedbench":      {"api", "controller/scheduler"},
	"testenv/controllerbench": {"api", "api/client", "api/trust", "controller", "controller/auth", "controller/members"},
	"cmd/weir-bench":          {"testenv/bench", "testenv/bench/load", "testenv/controllerbench", "testenv/dnsbench", "testenv/edgebench", "testenv/schedbench", "testenv/tracebench", "testenv/zonebench"},
	"cmd/weir":                {"api", "api/client", "document", "version", "zones", "zones/policyfile"},
	"cmd/weir-cni":            {"api", "api/client", "version"},
	"cmd/weir-agent":          {"agent", "agent/executor/shim", "document", "version"},
	"cmd/weir-controller":     {"controller", "controller/auth", "controller/members", "document", "version"},
	"cmd/weir-lab":            {"api", "testenv", "document", "version"},
}

// homes says where a heavy module may be imported: a folder and those below it.
var homes = map[string][]string{
	"github.com/moby/moby":                    {"agent/executor/docker"},
	"github.com/google/go-containerregistry":  {"agent/executor/container"},
	"github.com/cilium/ebpf":                  {"bpf", "dataplane/answers", "dataplane/deliver", "dataplane/edge", "dataplane/internal", "dataplane/program", "dataplane/trace", "testenv/bench", "testenv/edgebench"},
	"github.com/google/nftables":              {"dataplane/container", "dataplane/ipvs/guard", "dataplane/nft", "testenv"},
	"github.com/vishvananda/netlink":          {"dataplane/answers", "dataplane/balancertest", "dataplane/container", "dataplane/filtertest", "dataplane/ipvs", "dataplane/link", "testenv"},
	"github.com/vishvananda/netns":            {"dataplane/balancertest", "dataplane/container", "dataplane/filtertest", "dataplane/ipvs", "testenv"},
	"github.com/miekg/dns":                    {"dnsproxy", "testenv/dnsbench"},
	"go.yaml.in/yaml/v3":                      {"document", "cmd/weir"},
	"github.com/fsnotify/fsnotify":            {"agent"},
	"github.com/prometheus/client_golang":     {"agent", "controller", "dnsproxy"},
	"github.com/coreos/go-systemd/v22/daemon": {"cmd/weir-agent", "cmd/weir-controller"},
	"github.com/robfig/cron/v3":               {"controller/jobs"},
	"github.com/spf13/cobra":                  {"cmd", "testenv/manpage"},
	"github.com/containernetworking/cni":      {"cmd/weir-cni"},
	"go.etcd.io":                              {"controller/store"},
	"go.uber.org/zap":                         {"controller/store"},
	"google.golang.org/grpc":                  {"controller/store"},
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	for name, imports := range packages(t) {
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s has no row in mayImport", name)
		}
		for _, path := range imports {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, which its row does not allow", name, ours)
			}
			for heavy, folders := range homes {
				if (path == heavy || strings.HasPrefix(path, heavy+"/")) && !slices.ContainsFunc(folders, func(f string) bool { return name == f || strings.HasPrefix(name, f+"/") }) {
					t.Errorf("%s imports %s, whose home is %s", name, path, strings.Join(folders, ", "))
				}
			}
			if name == "api" && strings.Contains(path, ".") {
				t.Errorf("api imports %s, but may use the standard library only", path)
			}
		}
	}
}

func TestEveryRowHasItsPackage(t *testing.T) {
	found := packages(t)
	for name := range mayImport {
		if _, ok := found[name]; !ok {
			t.Errorf("mayImport has a row for %s, which is not there", name)
		}
	}
}

// packages lists the module's packages with what they import.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
			GoFiles    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
		}
	}
}
