package agent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTheHostAsksTheProxyAndGoesOnWithoutIt has the libc of this machine ask, by
// a resolv.conf of its own: mounted, as in a container, so that it is written in
// place.
func TestTheHostAsksTheProxyAndGoesOnWithoutIt(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	upstreamAt(t, "127.0.0.2:53", 0)
	r := newAgentRig(t, "dns: {manage_resolv_conf: file}")
	const original = "# the owner's\nnameserver 127.0.0.2\nsearch corp.example\n"
	r.write("resolv.conf", original)
	// hosts asks as any program of the host does.
	hosts := func(name string) string {
		out, _ := r.private(`exec timeout 60 getent ahostsv4 "$1"`, name).CombinedOutput()
		return string(out)
	}
	resolvConf := func() string {
		text, err := os.ReadFile(filepath.Join(r.dir, "resolv.conf"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	cmd := r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	for end := time.Now().Add(30 * time.Second); !strings.Contains(resolvConf(), "nameserver 169.254.53.53"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("resolv.conf is\n%s", resolvConf())
		}
	}
	if out := hosts("db.weir.internal"); !strings.Contains(out, "10.0.0.9") {
		t.Errorf("a name of the cluster: got %q with\n%s", out, resolvConf())
	}
	if out := hosts("www.example"); !strings.Contains(out, "192.0.2.1") { // by the proxy, of the host's server
		t.Errorf("a name outside: got %q", out)
	}
	awaitName(t, "www.example.", "192.0.2.1")

	r.stop(cmd, syscall.SIGKILL)
	began := time.Now()
	if out := hosts("later.example"); !strings.Contains(out, "192.0.2.1") {
		t.Errorf("without the agent: got %q", out)
	}
	t.Logf("without the agent a name took %s", time.Since(began))

	out, err := r.private(`exec "$@"`, r.binary, "cleanup", "--config", filepath.Join(r.dir, "agent.yaml")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "from the host's resolver (file)") {
		t.Errorf("cleanup: %v\n%s", err, out)
	}
	if got := resolvConf(); got != original {
		t.Errorf("restored as %q", got)
	}
}
