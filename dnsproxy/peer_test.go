package dnsproxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// peerFolder is where scripts/bench-packages unpacks servers that are not
// installed; WEIR_DNS_PEERS names another.
const peerFolder = "../bin/peers"

// knotCommand skips the test where the server is not there.
func knotCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	folder := os.Getenv("WEIR_DNS_PEERS")
	if folder == "" {
		folder = peerFolder
	}
	path, err := filepath.Abs(filepath.Join(folder, "usr/sbin/knotd"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		if path, err = exec.LookPath("knotd"); err != nil {
			t.Skip("knotd is not there (scripts/bench-packages bin/peers knot)")
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(filepath.Dir(path), "../lib/x86_64-linux-gnu"))
	return cmd
}

// startKnot serves zones, given as files in dir, at a port that was free.
func startKnot(t *testing.T, dir string, zones []string) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	var config strings.Builder
	fmt.Fprintf(&config, "server:\n  rundir: %[1]s\n  listen: %[2]s@%[3]d\ndatabase:\n  storage: %[1]s\nlog:\n- target: stderr\n  any: error\nzone:\n", dir, at.Addr(), at.Port())
	for _, zone := range zones {
		fmt.Fprintf(&config, "- domain: %[2]s\n  file: %[1]s/%[2]szone\n  semantic-checks: off\n  zonefile-sync: -1\n  journal-content: none\n", dir, zone)
	}
	path := filepath.Join(dir, "knot.conf")
	if err := os.WriteFile(path, []byte(config.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := knotCommand(t, "-c", path)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for range 600 {
		m, err := dns.Exchange(new(dns.Msg).SetQuestion(zones[0], dns.TypeSOA), at.String())
		if err == nil && len(m.Answer) == 1 {
			return at.String()
		}
		time.Sleep(50 * time.Millisecond)
	}
	cmd.Process.Kill()
	<-ended
	ended <- nil
	t.Fatalf("knotd does not serve: %s", complaints.String())
	return ""
}

// A server that others wrote and run is loaded with our zones and asked the same.
func TestAnswersAreThoseOfKnot(t *testing.T) {
	knotCommand(t)
	s := fleet()
	s.Records = append(s.Records, api.Record{Name: "deep.host.apps", Type: api.RecordTXT, Data: []string{"x"}}, api.Record{Name: "*.w.apps", Type: api.RecordCNAME, Data: []string{"web.shop.vip"}})
	p := proxyOf(t, compile(t, s, taskOptions()))
	if err := p.SetForwarding(Forwarding{Transfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	at, dir := running(t, p).String(), t.TempDir()
	zones := []string{"weir.internal.", "mesos.", "thisdcos.directory.", "spartan."}
	asked := map[string][]*dns.Msg{}
	for _, apex := range zones {
		records := transferred(t, apex, at)
		asked[apex] = questions(newReference(apex, records))
		var text strings.Builder
		for _, rr := range records[:len(records)-1] {
			fmt.Fprintln(&text, rr)
		}
		if err := os.WriteFile(filepath.Join(dir, apex+"zone"), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	peer, differ, count := startKnot(t, dir, zones), 0, 0
	for _, apex := range zones {
		for _, q := range asked[apex] {
			count++
			// The peer repeats a target's addresses for each record that names it,
			// and names that it compresses into the question get its letters.
			other := exchangeMessage(t, q, peer)
			other.Extra = dns.Dedup(other.Extra, nil)
			got, want := strings.ToLower(exchange(t, q, at)), strings.ToLower(inWords(other))
			if got != want && differ < 10 {
				differ++
				t.Errorf("%v:\ngot  %s\nwant %s", q.Question[0], got, want)
			}
		}
	}
	t.Logf("%d questions", count)
}
