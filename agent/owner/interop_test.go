package owner

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// keepalivedConfig has the group of the edge nodes in the tests, at a priority
// between theirs.
const keepalivedConfig = `
global_defs {
    vrrp_version 3
    script_user root
}
vrrp_instance four {
    interface eth0
    state BACKUP
    virtual_router_id 7
    priority 150
    advert_int 0.2
    virtual_ipaddress {
        10.80.0.200/32
    }
}
vrrp_instance six {
    interface eth0
    state BACKUP
    virtual_router_id 7
    priority 150
    advert_int 0.2
    virtual_ipaddress {
        fd00::200/128
    }
}
`

// TestElectsTogetherWithKeepalived runs where keepalived is installed: the
// field's other VRRP takes part in the same election.
func TestElectsTogetherWithKeepalived(t *testing.T) {
	binary, err := exec.LookPath("keepalived")
	if err != nil {
		t.Skip("keepalived is not installed")
	}
	l := newSegmentLab(t)
	lower := l.node(100)
	lower.at(Owner)
	l.ask()
	l.moves(lower, "before keepalived")
	dir := t.TempDir()
	config := filepath.Join(dir, "keepalived.conf")
	must(t, os.WriteFile(config, []byte(keepalivedConfig), 0o600))
	other := newSpace(t)
	const mac = "02:00:00:00:00:ee"
	l.plug("other", mac, netlink.NsFd(other.file.Fd()))
	other.ip("link", "set", "lo", "up")
	other.ip("link", "set", "eth0", "up")
	other.ip("addr", "add", "10.80.0.77/24", "dev", "eth0")
	cmd := exec.Command("nsenter", "--net=/proc/self/fd/3", binary, "-n", "-l", "-P", "-f", config, "-p", filepath.Join(dir, "pid"), "-r", filepath.Join(dir, "vrrp.pid"))
	cmd.ExtraFiles = []*os.File{other.file}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	keepalived := &edge{t: t, mac: mac, in: lower.in, out: lower.out} // has no words of its own
	l.moves(keepalived, "keepalived outranks the lower node")
	lower.at(Standby)
	higher := l.node(200)
	l.moves(higher, "the higher node outranks keepalived")
	higher.at(Owner)
	higher.in.Close()
	l.moves(keepalived, "keepalived follows a resignation")
	must(t, cmd.Process.Signal(unix.SIGTERM))
	l.moves(lower, "keepalived ends")
	if s := lower.state(); !strings.Contains(s, "Ignored:map[]") || !strings.Contains(s, "Mismatched:0") {
		t.Errorf("keepalived's packets are not taken whole: %s", s)
	}
}
