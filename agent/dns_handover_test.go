package agent

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// agentRig runs real agents on one node, one after the other.
type agentRig struct {
	t      *testing.T
	binary string
	dir    string
	// systemd keeps the sockets; nil: nobody does.
	systemd *socketStore
	log     syncBuffer
}

func newAgentRig(t *testing.T, config string) *agentRig {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir") // short, for the sockets' paths
	if err != nil {
		t.Fatal(err)
	}
	r := &agentRig{t: t, dir: dir, binary: filepath.Join(dir, "weir-agent")}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	build := exec.Command("go", "build", "-o", r.binary, "../cmd/weir-agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	for _, sub := range []string{"state", "run", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.configure(config)
	r.writeState("kind: record\nname: db\ntype: A\ndata: 10.0.0.9\n")
	return r
}

// configure writes the agent's file, in one step.
func (r *agentRig) configure(dns string) {
	r.t.Helper()
	text := fmt.Sprintf("node: {name: a1, addresses: [10.80.0.11]}\nstate: %[1]s/state\nrun_dir: %[1]s/run\ndata_dir: %[1]s/data\nvip: {dataplane: \"off\"}\nmetrics: {listen: \"\"}\n%[2]s\n", r.dir, dns)
	r.write("agent.yaml", text)
}

func (r *agentRig) writeState(text string) { r.t.Helper(); r.write("state/state.yaml", text) }

func (r *agentRig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

// start runs an agent and does not wait for it.
func (r *agentRig) start(args ...string) *exec.Cmd {
	r.t.Helper()
	argv := append([]string{r.binary, "--config", filepath.Join(r.dir, "agent.yaml")}, args...)
	cmd := r.private(`LISTEN_PID=$$ exec "$@"`, argv...) // it has the pid that the agent will have, which systemd tells
	cmd.Stdout, cmd.Stderr = &r.log, &r.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if r.systemd != nil {
		cmd.ExtraFiles = r.systemd.files()
		defer closeFiles(cmd.ExtraFiles)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+r.systemd.path, fmt.Sprintf("LISTEN_FDS=%d", len(cmd.ExtraFiles)))
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// private runs a script with its arguments where a bpffs of its own hides the
// machine's: an agent pins there, and cleanup clears it. The rig's resolv.conf, if
// it has one, hides the machine's too, as in a container.
func (r *agentRig) private(script string, argv ...string) *exec.Cmd {
	setup := "mount -t bpf weir /sys/fs/bpf && "
	if path := filepath.Join(r.dir, "resolv.conf"); fileExists(path) {
		setup += "mount --bind " + path + " /etc/resolv.conf && "
	}
	return exec.Command("unshare", append([]string{"-m", "/bin/sh", "-c", setup + script, "sh"}, argv...)...)
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// stop ends an agent with a signal and waits for it.
func (r *agentRig) stop(cmd *exec.Cmd, signal syscall.Signal) {
	r.t.Helper()
	if err := cmd.Process.Signal(signal); err != nil {
		r.t.Fatal(err)
	}
	_ = cmd.Wait()
}

const proxyAddress = "169.254.53.53:53"

// askProxy asks the node's proxy once.
func askProxy(network, server, name string, rtype uint16, patience time.Duration) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: patience}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, rtype), server)
	return m, err
}

// awaitName waits until the proxy answers a name with the text.
func awaitName(t *testing.T, name, want string) {
	t.Helper()
	var last string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		m, err := askProxy("udp", proxyAddress, name, dns.TypeA, time.Second)
		if err != nil {
			last = err.Error()
			continue
		}
		if last = dns.RcodeToString[m.Rcode] + " " + fmt.Sprint(m.Answer); strings.Contains(last, want) {
			return
		}
	}
	t.Fatalf("%s: got %s, want %s", name, last, want)
}

// queryLoad asks without a pause, in lanes, and never asks again: what is not answered
// is lost.
type queryLoad struct {
	stop        chan struct{}
	wg          sync.WaitGroup
	asked, lost atomic.Uint64
	longest     atomic.Int64
}

func startQueries(names ...string) *queryLoad {
	l := &queryLoad{stop: make(chan struct{})}
	for i := range 8 {
		l.wg.Go(func() { l.lane(names[i%len(names)], i) })
	}
	return l
}

func (l *queryLoad) lane(name string, lane int) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		asked := strings.ReplaceAll(name, "%", fmt.Sprintf("n%d-%d", lane, n))
		began := time.Now()
		m, err := askProxy("udp", proxyAddress, asked, dns.TypeA, 5*time.Second)
		l.asked.Add(1)
		if err != nil || m.Rcode != dns.RcodeSuccess {
			l.lost.Add(1)
		}
		if took := int64(time.Since(began)); took > l.longest.Load() {
			l.longest.Store(took)
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *queryLoad) end() (asked, lost uint64, longest time.Duration) {
	close(l.stop)
	l.wg.Wait()
	return l.asked.Load(), l.lost.Load(), time.Duration(l.longest.Load())
}

// slowUpstream answers every A question after a while, at an address of lo.
func slowUpstream(t *testing.T, after time.Duration) netip.AddrPort {
	t.Helper()
	return upstreamAt(t, "127.0.0.1:0", after)
}

func upstreamAt(t *testing.T, at string, after time.Duration) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(after)
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestASuccessorTakesTheSocketsOverAndNoQueryIsLost(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := newAgentRig(t, fmt.Sprintf("dns: {upstreams: [%s]}", slowUpstream(t, 40*time.Millisecond)))
	first := r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	l := startQueries("db.weir.internal.", "db.weir.internal.", "%.example.")
	time.Sleep(200 * time.Millisecond)
	for range 3 {
		next := r.start("--takeover")
		if err := first.Wait(); err != nil { // it ends when its successor serves
			t.Fatalf("the agent before: %v", err)
		}
		first = next
		time.Sleep(200 * time.Millisecond)
	}
	asked, lost, longest := l.end()
	t.Logf("%d queries, %d lost, the slowest took %s", asked, lost, longest)
	if lost > 0 || asked == 0 {
		t.Errorf("%d of %d queries were lost", lost, asked)
	}
	if !strings.Contains(r.log.String(), "sockets taken over") {
		t.Error("no sockets were taken over")
	}
	r.stop(first, syscall.SIGTERM)
	r.start("--takeover") // nobody is there: it starts as ever
	awaitName(t, "db.weir.internal.", "10.0.0.9")
}

func TestSystemdKeepsTheSocketsOverARestartAndACrash(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := newAgentRig(t, fmt.Sprintf("dns: {upstreams: [%s]}", slowUpstream(t, 40*time.Millisecond)))
	r.systemd = newSocketStore(t)
	cmd := r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	r.systemd.await(t)
	l := startQueries("db.weir.internal.", "db.weir.internal.", "%.example.")
	time.Sleep(200 * time.Millisecond)
	r.stop(cmd, syscall.SIGTERM)
	cmd = r.start()
	time.Sleep(time.Second)
	asked, lost, longest := l.end()
	t.Logf("restart: %d queries, %d lost, the slowest took %s", asked, lost, longest)
	if lost > 0 {
		t.Errorf("a restart lost %d of %d queries", lost, asked)
	}

	awaitName(t, "db.weir.internal.", "10.0.0.9")
	l = startQueries("db.weir.internal.")
	time.Sleep(200 * time.Millisecond)
	r.stop(cmd, syscall.SIGKILL)
	r.start()
	time.Sleep(time.Second)
	asked, lost, longest = l.end()
	t.Logf("kill -9: %d queries, %d lost, the slowest took %s", asked, lost, longest)
	// What the killed one had read and not answered is gone: a query of each of
	// the lanes at the most.
	if lost > 8 {
		t.Errorf("a crash lost %d of %d queries", lost, asked)
	}
}

func TestANameIsBackSoonAfterACrash(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := newAgentRig(t, "dns: {}")
	cmd := r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	r.stop(cmd, syscall.SIGKILL)
	if _, err := askProxy("udp", proxyAddress, "db.weir.internal.", dns.TypeA, 5*time.Second); err == nil {
		t.Fatal("somebody answers, though the agent is dead")
	} else if !strings.Contains(err.Error(), "refused") {
		t.Errorf("a client is left waiting: %v", err)
	}
	began := time.Now()
	r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	t.Logf("names are back %s after the new agent's start", time.Since(began))
}

// socketStore does what systemd does with FDSTORE.
type socketStore struct {
	path string
	mu   sync.Mutex // guards kept
	kept []int      // descriptors
}

func newSocketStore(t *testing.T) *socketStore {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	s := &socketStore{path: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.listen(conn) }()
	t.Cleanup(func() { conn.Close(); <-done; os.RemoveAll(dir); s.drop() })
	return s
}

func (s *socketStore) listen(conn *net.UnixConn) {
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*256))
	for {
		n, m, _, _, err := conn.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		s.mu.Lock()
		if bytes.Contains(text[:n], []byte("FDSTOREREMOVE=1")) {
			s.drop()
		}
		messages, _ := unix.ParseSocketControlMessage(rights[:m])
		for i := range messages {
			numbers, _ := unix.ParseUnixRights(&messages[i])
			for _, number := range numbers {
				unix.CloseOnExec(number)
				s.kept = append(s.kept, number)
			}
		}
		s.mu.Unlock()
	}
}

// files are copies, which the caller closes.
func (s *socketStore) files() (all []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, number := range s.kept {
		if copied, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			all = append(all, os.NewFile(uintptr(copied), "kept"))
		}
	}
	return all
}

// drop wants mu held.
func (s *socketStore) drop() {
	for _, number := range s.kept {
		unix.Close(number)
	}
	s.kept = nil
}

func (s *socketStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}

func (s *socketStore) await(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); s.count() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no socket was given to keep")
		}
	}
}

// syncBuffer is a log that several processes write.
type syncBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
