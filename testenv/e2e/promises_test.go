package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
)

// The four promises of the design, one test each.

func TestWantedStateIsWrittenByFilesAlone(t *testing.T) {
	l := web(t)
	before := l.status("a1").Wanted
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/v1/status", "/v1/vips", "/v1/vips/web.shop"} {
			out := l.must("a1", "--", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-d", "{}", "--unix-socket", "/run/weir/agent.sock", "http://agent"+path)
			if out != "405" {
				t.Errorf("%s %s: got %s, want 405", method, path, out)
			}
		}
	}
	if after := l.status("a1").Wanted; after != before {
		t.Errorf("the wanted revision moved from %d to %d without a file's change", before, after)
	}
}

func TestNothingInTheKernelChangesBeforeAWholeSnapshot(t *testing.T) {
	l := up(t, map[string]string{"services.yaml": services, "policy.yaml": policy})
	// Take everything away, state on disk included, and leave a bad file.
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a1", "--agent"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	l.must("a1", "--", "weir-agent", "cleanup")
	l.must("a1", "--", "sh", "-c", "rm -f /var/lib/weir/*")
	l.write("services.yaml", "kind: service\nname: web\nvips: [\"web:80\"")
	l.must("a1", "--detach", "again", "--", "weir-agent")
	l.eventually(5*time.Second, func() error {
		out := l.must("a1", "--", "sh", "-c", "weir status; true")
		if !strings.Contains(out, "services.yaml:") {
			return errors.New(out)
		}
		return nil
	})
	if out := l.must("a1", "--", "sh", "-c", "nft list tables; ip addr show dev lo; find /sys/fs/bpf -name '*link*'"); strings.Contains(out, "weir") || strings.Contains(out, "169.254") {
		t.Errorf("the kernel was changed without a whole snapshot:\n%s", out)
	}
	l.write("services.yaml", services)
	l.eventually(5*time.Second, func() error {
		if out := l.must("a1", "--", "nft", "list", "tables"); !strings.Contains(out, "inet weir") {
			return errors.New("no table yet: " + out)
		}
		return nil
	})
}

func TestCleanupRemovesAllOfOursAndNothingElse(t *testing.T) {
	l := web(t)
	l.must("a1", "--", "nft", "add table inet foreign; add chain inet foreign c { type filter hook input priority 5; }")
	l.must("a1", "--", "ip", "addr", "add", "192.0.2.77/32", "dev", "lo")
	if out, err := l.exec("a1", "--", "weir-agent", "cleanup"); err == nil {
		t.Errorf("cleanup ran beside an agent: %s", out)
	}
	if out, err := run("weir-lab", "kill", "--lab", l.name, "a1", "--agent"); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	l.must("a1", "--", "weir-agent", "cleanup")
	out := l.must("a1", "--", "sh", "-c", "nft list ruleset; ip addr show dev lo; find /sys/fs/bpf -mindepth 1; ls /run/weir")
	for _, ours := range []string{"inet weir", "169.254.53.53", "/sys/fs/bpf/weir", "agent.sock"} {
		if strings.Contains(out, ours) {
			t.Errorf("%s is left:\n%s", ours, out)
		}
	}
	for _, foreign := range []string{"table inet foreign", "192.0.2.77"} {
		if !strings.Contains(out, foreign) {
			t.Errorf("%s was removed:\n%s", foreign, out)
		}
	}
	if again := l.must("a1", "--", "weir-agent", "cleanup"); !strings.Contains(again, "nothing") {
		t.Errorf("a second cleanup found something: %s", again)
	}
}

func TestTrafficGoesOnAndZonesStayClosedWhileTheAgentIsDown(t *testing.T) {
	l := web(t)
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := l.exec("a1", "--", "weir-lab", "load", "http://198.18.0.10/", "--rate", "200", "--duration", "3s")
		done <- result{out, err}
	}()
	time.Sleep(300 * time.Millisecond)
	for range 3 {
		if out, err := run("weir-lab", "kill", "--lab", l.name, "a1", "--agent"); err != nil {
			t.Fatalf("kill: %v\n%s", err, out)
		}
		if out, err := l.exec("outsider", "--", "curl", "-sS", "--max-time", "0.3", "http://10.80.0.11:8080/"); err == nil {
			t.Errorf("the zone opened while the agent was down: %s", out)
		}
		if out, err := run("weir-lab", "start", "--lab", l.name, "a1"); err != nil {
			t.Fatalf("start: %v\n%s", err, out)
		}
	}
	if r := <-done; r.err != nil {
		t.Errorf("requests failed while the agent was killed: %v\n%s", r.err, r.out)
	}
	l.eventually(5*time.Second, func() error {
		if s := l.status("a1"); s.Revision != s.Wanted || s.Wanted == 0 {
			return fmt.Errorf("applied %d of %d", s.Revision, s.Wanted)
		}
		return nil
	})
}

func TestDriftIsRepairedAndCounted(t *testing.T) {
	l := web(t)
	l.must("a1", "--", "nft", "flush", "table", "inet", "weir")
	l.must("a1", "--", "ip", "addr", "del", "169.254.53.53/32", "dev", "lo")
	l.eventually(5*time.Second, func() error {
		repaired := map[string]uint64{}
		for _, c := range l.status("a1").Components {
			repaired[c.Name] = c.Repaired
		}
		if repaired["zones"] == 0 || repaired["dns"] == 0 {
			return fmt.Errorf("repaired: %v", repaired)
		}
		return nil
	})
	// The flushed chain still dropped by default, health checks' answers too.
	l.eventually(5*time.Second, func() error {
		if out, err := l.curl("a1", "http://web.shop.vip.weir.internal/"); err != nil {
			return fmt.Errorf("after the repair: %w: %s", err, out)
		}
		return nil
	})
	if out, err := l.curl("outsider", "http://10.80.0.11:8080/"); err == nil {
		t.Errorf("after the repair the zone is open: %s", out)
	}
}

func TestTheMachineIsTheSameBeforeAndAfterALab(t *testing.T) {
	testenv.NeedNetns(t)
	before := machine(t)
	t.Run("lab", func(t *testing.T) {
		l := web(t)
		if during := machine(t); during != before {
			t.Errorf("a lab that is up shows in the machine; before:\n%swith it:\n%s", before, during)
		}
		l.must("a1", "--", "true")
	})
	if after := machine(t); after != before {
		t.Errorf("the machine changed; before:\n%safter:\n%s", before, after)
	}
}
