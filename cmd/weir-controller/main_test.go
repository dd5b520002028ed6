package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/api/trust"
)

// weir runs a command line and returns what it printed.
func weir(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestBeginBackUpAndRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c1")
	flags := []string{"--config", os.DevNull, "--data-dir", dir, "--name", "c1", "--listen", "127.0.0.1:8443", "--peer-listen", freeAddress(t), "--log-level", "error"}
	with := func(args ...string) (string, error) { return weir(t, append(args, flags...)...) }
	if _, err := with("token"); err == nil || !strings.Contains(err.Error(), "init") {
		t.Errorf("before init: got %v, want what to do", err)
	}
	first, err := with("init")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(first, "weir1.") != 3 || !strings.Contains(first, "https://127.0.0.1:8443") {
		t.Errorf("init printed %q", first)
	}
	again, err := with("init")
	if cluster, _, _ := strings.Cut(first, "\n"); err != nil || !strings.HasPrefix(again, cluster+"\n") {
		t.Errorf("init again: got %q, %v", again, err)
	}
	made, err := with("token", "--role", "agent", "--uses", "3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.ParseToken(made); err != nil {
		t.Errorf("token: %v", err)
	}
	file := filepath.Join(t.TempDir(), "weir.db")
	if _, err := with("backup", file); err != nil {
		t.Fatal(err)
	}
	if _, err := with("restore", file); err == nil {
		t.Error("restored over a store")
	}
	if err := os.RemoveAll(filepath.Join(dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	restored, err := with("restore", file)
	if cluster, _, _ := strings.Cut(first, "\n"); err != nil || strings.TrimSpace(restored) != "restored the "+cluster {
		t.Errorf("restore: got %q, %v", restored, err)
	}
}

func TestFlagBeatsEnvironmentBeatsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "controller.yaml")
	if err := os.WriteFile(file, []byte("name: from-file\nlisten: 127.0.0.1:1\ndata_dir: /file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIR_CONTROLLER_LISTEN", "127.0.0.1:2")
	t.Setenv("WEIR_CONTROLLER_DATA_DIR", "/environment")
	var flags configFlags
	cmd := command()
	flags.register(cmd.Flags())
	if err := cmd.Flags().Parse([]string{"--config", file, "--data-dir", "/flag"}); err != nil {
		t.Fatal(err)
	}
	conf, o, err := flags.options()
	if err != nil {
		t.Fatal(err)
	}
	if conf.Name != "from-file" || conf.Listen != "127.0.0.1:2" || conf.DataDir != "/flag" || o.URL != "https://127.0.0.1:2" {
		t.Errorf("got %+v, %s", conf, o.URL)
	}
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{{"bogus"}, {"join"}, {"backup"}, {"run", "x"}, {"init", "--no-such-flag"}, {"join", "https://127.0.0.1:1", "--config", os.DevNull}} {
		if _, err := weir(t, args...); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want a wrong use", args, err)
		}
	}
}
