package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane"
)

const childVariable = "WEIR_DELIVER_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		ownerMain()
		return
	}
	os.Exit(m.Run())
}

func TestOpenFlowsSurviveTheOwner(t *testing.T) {
	r := newRig(t)
	var c net.Conn
	r.client.must(func() (err error) { c, err = net.Dial("tcp", vip4.String()); return err })
	defer c.Close()
	say := func(b string) {
		t.Helper()
		if _, err := c.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	// 4 bytes of body are announced.
	say("\x00\x00\x00\x04\x00\x00")
	// Another process takes over, and is killed.
	r.d.Close()
	owner := startOwner(t, r)
	say("\x00\x01a")
	owner.Process.Kill()
	owner.Wait()
	say("b")
	// And this one takes over again.
	d, err := New(r.d.options)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r.d = d
	if c := r.set(); c != nothing {
		t.Errorf("Set after the owner was killed: got %+v, want no change", c)
	}
	say("cd")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, err := io.ReadAll(c)
	if err != nil || len(answer) != 33 {
		t.Errorf("got %d bytes and %v, want 33", len(answer), err)
	}
	r.requests(vip4, 3, 10, 10)
}

// startOwner starts a process in the node's namespace that sets the table and
// waits.
func startOwner(t *testing.T, r *rig) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childVariable+"=1")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// A process starts in the namespace of the thread that starts it.
	r.node.must(command.Start)
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	if err := json.NewEncoder(in).Encode(ownerJob{Options{PinDir: r.d.options.PinDir}, r.table}); err != nil {
		t.Fatal(err)
	}
	var fault string
	if err := json.NewDecoder(out).Decode(&fault); err != nil || fault != "" {
		t.Fatalf("the owner: %s (%v)", fault, err)
	}
	return command
}

type ownerJob struct {
	Options Options
	Table   dataplane.DeliveryTable
}

func ownerMain() {
	var job ownerJob
	var c dataplane.Changes
	err := json.NewDecoder(os.Stdin).Decode(&job)
	var d *Deliverer
	if err == nil {
		d, err = New(job.Options)
	}
	if err == nil {
		c, err = d.Set(context.Background(), job.Table)
	}
	fault := ""
	if err == nil && c != nothing {
		err = fmt.Errorf("Set changed %+v", c)
	}
	if err != nil {
		fault = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(fault)
	io.Copy(io.Discard, os.Stdin)
}

func TestMapsOfAnotherLayoutGoWhenOursWork(t *testing.T) {
	o := newOptions(t)
	d := open(t, o)
	set(t, d, table())
	old := filepath.Join(o.PinDir, layoutPrefix+"00000000")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	set(t, d, table())
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the folder of another layout: got %v, want that it is gone", err)
	}
}
