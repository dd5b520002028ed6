package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
)

const web = "kind: service\nname: web\nnamespace: shop\nvips: [\"web:80\", \"198.18.0.10:80\"]\nbackends:\n- {address: \"10.0.0.1:80\"}\n"

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, files map[string]string, old *api.Snapshot) (*api.Snapshot, error) {
	t.Helper()
	d, err := readFolders([]string{folder(t, files), "/nonexistent/folder"})
	if err != nil {
		return nil, err
	}
	c := DefaultConfig()
	c.Node.Name, c.Node.Role = "a1", "agent"
	return buildSnapshot(c, d, old)
}

func TestASnapshotIsBuiltFromTheFilesAndItsRevisionMovesWithThem(t *testing.T) {
	files := map[string]string{
		"a.yaml": web, ".hidden.yaml": "nonsense", "b.yaml~": "nonsense", "notes.txt": "nonsense",
		"n.json": `{"kind": "node", "name": "a1", "addresses": ["10.80.0.11"]}`,
	}
	first, err := build(t, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Services) != 1 || len(first.Nodes) != 1 || first.Node.Addresses[0].String() != "10.80.0.11" || !first.VIPs["web.shop"].V4.IsValid() || first.Revision != 1 {
		t.Errorf("got %+v", first)
	}
	same, err := build(t, files, first)
	if err != nil || same.Revision != 1 {
		t.Errorf("the same files: revision %d, %v", same.Revision, err)
	}
	files["r.yaml"] = "kind: record\nname: db\ntype: A\ndata: 10.0.0.9\n"
	next, err := build(t, files, first)
	if err != nil || next.Revision != 2 || next.VIPs["web.shop"] != first.VIPs["web.shop"] {
		t.Errorf("another record: got %+v, %v", next, err)
	}
}

func TestWhatCannotStandTogetherIsRefusedWithItsPlace(t *testing.T) {
	policy := "kind: policy\nzones: {a: {cidrs: [10.0.0.0/8]}}\nrules: [{name: r, from: [any], to: [a], allow: [any]}]\n"
	for what, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a service twice":    {map[string]string{"a.yaml": web, "b.yaml": web}, `b.yaml:1:1: the service "web.shop" is defined a second time`},
		"two policies":       {map[string]string{"a.yaml": policy, "b.yaml": policy}, "b.yaml:1:1: the policy is defined a second time"},
		"one VIP, two users": {map[string]string{"a.yaml": web, "b.yaml": strings.Replace(web, "name: web", "name: x", 1)}, "b.yaml:4:18: vips[1]: 198.18.0.10:80 tcp is served by web.shop already"},
		"a failing test":     {map[string]string{"a.yaml": policy + "tests: [{from: 10.0.0.1, to: 10.0.0.2, port: tcp/22, expect: deny}]\n"}, "a.yaml:4:9: tests[0]: expected deny"},
		"a record beside a CNAME": {map[string]string{"a.yaml": "kind: record\nname: x\ntype: CNAME\ndata: y.weir.internal.\n---\nkind: record\nname: x\ntype: A\ndata: 10.0.0.1\n"},
			"a.yaml:1:1: a CNAME has its name for itself"},
	} {
		if _, err := build(t, c.files, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
	}
}

func TestASnapshotOnDiskIsWholeOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot.json")
	if found, err := load(path, &api.Snapshot{}); found || err != nil {
		t.Errorf("no file: got %v, %v", found, err)
	}
	s, err := build(t, map[string]string{"a.yaml": web}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := save(path, s); err != nil {
		t.Fatal(err)
	}
	var back api.Snapshot
	if found, err := load(path, &back); !found || err != nil || !back.Equal(s) {
		t.Errorf("got %+v, %v, %v", back, found, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string]string{
		"cut short": string(data[:len(data)/2]), "a changed byte": strings.Replace(string(data), "10.0.0.1", "10.0.0.7", 1), "empty": "",
	} {
		if err := os.WriteFile(path, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		if found, err := load(path, &back); found || err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: got %v, %v", what, found, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("temporary files are left: %v", entries)
	}
}

func TestOneAgentAtATime(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "another weir-agent") {
		t.Errorf("a second lock: got %v", err)
	}
	unlock()
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestABadConfigurationIsRefusedByKey(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"node.name":     func(c *Config) { c.Node.Name = "" },
		"state":         func(c *Config) { c.State = nil },
		"vip.dataplane": func(c *Config) { c.VIP.Dataplane = "magic" },
		"zones.mode":    func(c *Config) { c.Zones.Mode = "maybe" },
		"vip.edge.mode": func(c *Config) { c.VIP.Edge.Mode = "fast" },
		"vip.edge.vrid": func(c *Config) { c.VIP.Edge.VRID = 256 },
		"vip.range":     func(c *Config) { c.VIP.Range = c.VIP.Range6 },
		"dns.listen[0]": func(c *Config) { c.DNS.Listen[0] = netip.IPv6Unspecified() },
	} {
		c := DefaultConfig()
		c.Node.Name = "a1"
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if faults := api.FieldErrors(c.Validate()); len(faults) != 1 || faults[0].Field != key {
			t.Errorf("%s: got %v", key, faults)
		}
	}
}
