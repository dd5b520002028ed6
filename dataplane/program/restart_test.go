package program

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/pin"
)

func TestRestartKeepsCountersAndConnections(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	z := service("z/udp/4", api.UDP, "198.18.0.10:53", "10.80.0.11:53")
	l.serve(a, z)
	b := l.open()
	set(t, b, table(a, z))
	l.dial("tcp", "198.18.0.10:80", 10)
	open := l.client.must(request{Op: "dial", Network: "tcp", Target: a.Frontends[0], Keep: true})[0]
	before, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	spread(t, l.dial("udp", "198.18.0.10:53", 3)) // nobody runs, yet balanced
	b = l.open()
	between, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(between.Services[a.Name]), fmt.Sprint(before.Services[a.Name]); got != want {
		t.Errorf("counters after the restart: got %s, want %s", got, want)
	}
	if n := between.Services[z.Name].Connections; n != 3 {
		t.Errorf("connections while nobody ran: counted %d, want 3", n)
	}
	if c := set(t, b, table(a, z)); c != nothing {
		t.Errorf("Set after the restart: got %+v, want no change", c)
	}
	again := l.client.must(request{Op: "dial", Network: "tcp", Socket: open.Socket, Keep: true})[0]
	if again.server() != open.server() || again.Peer != "198.18.0.10:80" {
		t.Errorf("the open connection: %+v, then %+v", open, again)
	}
	// A service that comes back under another id starts from zero.
	set(t, b, table(z))
	set(t, b, table(a, z))
	after, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if n := after.Services[a.Name].Connections; n != 0 {
		t.Errorf("a removed service came back with %d connections", n)
	}
}

func TestKilledOwnerChangesNothing(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80", "10.80.0.12:80")
	l.serve(a)
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), childVariable+"=owner")
	owner.Stderr = os.Stderr
	owner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	options := l.options()
	options.Log = nil
	json.NewEncoder(in).Encode(map[string]any{"Options": options, "Table": table(a)})
	if answer, err := bufio.NewReader(out).ReadString('\n'); answer != "\"<nil>\"\n" {
		t.Fatalf("the owner says %s, %v", answer, err)
	}
	open := l.client.must(request{Op: "dial", Network: "tcp", Target: a.Frontends[0], Keep: true})[0]
	l.client.send(request{Op: "churn", Network: "tcp", Target: a.Frontends[0], Count: 300})
	time.Sleep(100 * time.Millisecond)
	owner.Process.Kill()
	owner.Wait()
	results := l.client.receive()
	if n := len(results); n != 1 || results[0].Socket < 50 {
		t.Errorf("around the kill: %d failures of %d connections, first %+v", n-1, results[n-1].Socket, results[0])
	}
	spread(t, l.dial("tcp", "198.18.0.10:80", 20))
	if again := l.client.must(request{Op: "dial", Network: "tcp", Socket: open.Socket})[0]; again.server() != open.server() {
		t.Errorf("the open connection: %+v, then %+v", open, again)
	}
	if c := set(t, l.open(), table(a)); c != nothing {
		t.Errorf("the next owner: got %+v, want no change", c)
	}
}

func TestAnotherCgroupAndAGoneOneAreTakenOver(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(a)
	elsewhere := newCgroup(t)
	o := l.options()
	o.Cgroup = elsewhere
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	set(t, b, table(a))
	b.Close()
	// The next agent is configured for the client's cgroup.
	b = l.open()
	if c := set(t, b, table(a)); c.Written != len(hooks) || c.Repaired != 0 {
		t.Errorf("moving to another cgroup: got %+v, want %d links written", c, len(hooks))
	}
	spread(t, l.dial("tcp", "198.18.0.10:80", 3))
	b.Close()
	gone := newCgroup(t)
	o.Cgroup = gone
	if b, err = New(o); err != nil {
		t.Fatal(err)
	}
	set(t, b, table(a))
	b.Close()
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	b = l.open()
	set(t, b, table(a))
	spread(t, l.dial("tcp", "198.18.0.10:80", 3))
}

func TestUpgradeReplacesProgramsAndOldLayouts(t *testing.T) {
	l := newLab(t)
	a := service("a/tcp/4", api.TCP, "198.18.0.10:80", "10.80.0.11:80")
	l.serve(a)
	b := l.open()
	set(t, b, table(a))
	b.Close()
	// The version before us had other code in this hook, and maps of another
	// layout.
	path := filepath.Join(l.pins, pin.LinkPrefix+"connect4")
	before, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := before.Update(foreignProgram(t)); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(l.pins, layoutPrefix+"0ld")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	b = l.open()
	if c := set(t, b, table(a)); c.Written != 1 || c.Repaired != 0 {
		t.Errorf("got %+v, want one program written", c)
	}
	after, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if !pin.SameLink(before, after) {
		t.Error("the link was made anew: connections passed by in between")
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the maps of the old layout are left: %v", err)
	}
	spread(t, l.dial("tcp", "198.18.0.10:80", 3))
}

// ownerMain is a process that opens a balancer, sets a table and then hangs on
// until somebody kills it.
func ownerMain() {
	var job struct {
		Options Options
		Table   dataplane.Table
	}
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		panic(err)
	}
	b, err := New(job.Options)
	if err == nil {
		_, err = b.Set(context.Background(), job.Table)
	}
	fmt.Println(strconv.Quote(fmt.Sprint(err)))
	io.Copy(io.Discard, os.Stdin)
}
