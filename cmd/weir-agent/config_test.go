package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/agent"
)

func load(t *testing.T, file string, args ...string) (agent.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	root := command()
	var flags configFlags
	root.ResetFlags()
	flags.register(root.Flags())
	if err := root.ParseFlags(append(args, "--config", path)); err != nil {
		return agent.Config{}, err
	}
	return flags.load()
}

func TestAFlagBeatsTheEnvironmentWhichBeatsTheFile(t *testing.T) {
	file := "node: {name: from-file, zone: private}\ndns: {listen: [127.0.0.7], domain: file.internal}\nstate: /a\n"
	t.Setenv("WEIR_NODE_NAME", "from-environment")
	t.Setenv("WEIR_DNS_DOMAIN", "environment.internal")
	c, err := load(t, file, "--node-name", "from-flag", "--state", "/b,/c")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "from-flag" || c.DNS.Domain != "environment.internal" || c.Node.Zone != "private" || strings.Join(c.State, " ") != "/b /c" || c.DNS.Listen[0].String() != "127.0.0.7" {
		t.Errorf("got %+v", c)
	}
	if c.VIP.Range.String() != "198.18.0.0/15" {
		t.Errorf("a key that nothing sets lost its default: %v", c.VIP.Range)
	}
}

func TestABadConfigurationIsRefusedWithItsPlace(t *testing.T) {
	for file, want := range map[string]string{
		"node: {name: a1}\nvpi: {}\n":                      ":2:1: vpi: unknown key",
		"node: {name: a1}\nzones: {mode: maybe}\n":         `:2:15: zones.mode: "maybe" is not one of`,
		"node: {name: a1}\nvip:\n  range: 198.18.0.0/99\n": ":3:10: vip.range:",
	} {
		if _, err := load(t, file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", file, err, want)
		}
	}
	if _, err := load(t, "", "--vip-range", "nonsense"); !errors.Is(err, errUsage) {
		t.Errorf("a bad flag: got %v, want wrong usage", err)
	}
	t.Setenv("WEIR_ZONES_MODE", "maybe")
	if _, err := load(t, "node: {name: a1}\n"); err == nil || !strings.Contains(err.Error(), "zones.mode") {
		t.Errorf("a bad variable: got %v", err)
	}
}
