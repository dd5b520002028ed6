package trace

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/weirproject/weir/api"
)

func TestAConnectionIsToldFromBothItsEnds(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	if len(w.Missing()) > 0 {
		t.Errorf("not traced: %v", w.Missing())
	}
	l := echo(t, "127.0.0.1:8080")
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	local := c.LocalAddr().String()
	c.Close()
	out := w.flow("the client's end", func(f *Flow) bool { return f.Local.String() == local && !f.Ended.IsZero() })
	if out.Accepted || out.Remote.String() != "127.0.0.1:8080" || out.Protocol != api.TCP || out.Sent != 3000 || out.Received != 3000 ||
		out.Process != os.Getpid() || out.Command == "" || out.Opened.Before(out.Began) || out.Ended.Before(out.Opened) || out.RTT == 0 || out.Fault != 0 || out.VIP.IsValid() {
		t.Errorf("the client's end: got %+v", *out)
	}
	in := w.flow("the server's end", func(f *Flow) bool { return f.Remote.String() == local && !f.Ended.IsZero() })
	if !in.Accepted || in.Local.String() != "127.0.0.1:8080" || in.Sent != 3000 || in.Received != 3000 || in.Process != os.Getpid() {
		t.Errorf("the server's end: got %+v", *in)
	}
}

func TestAConnectionThatFailsIsToldWithItsFault(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	w := watch(t, Options{})
	for target, fault := range map[string]syscall.Errno{
		"127.0.0.1:9":      syscall.ECONNREFUSED, // nobody listens
		"[::1]:9":          syscall.ECONNREFUSED,
		"203.0.113.1:80":   0, // no route
		"[2001:db8::1]:80": 0,
	} {
		if c, err := net.Dial("tcp", target); err == nil {
			c.Close()
			t.Fatalf("%s answers", target)
		}
		f := w.flow(target, func(f *Flow) bool { return f.Remote.String() == target })
		if f.Fault != fault || f.Process != os.Getpid() || !f.Opened.IsZero() || f.Ended.IsZero() || f.Unsent != (fault == 0) {
			t.Errorf("%s: got %+v, want %v", target, *f, fault)
		}
	}
	d := w.drop("the packet to a closed port", func(d *Drop) bool { return d.Destination.String() == "127.0.0.1:9" })
	if d.Reason != "NO_SOCKET" || d.Protocol != syscall.IPPROTO_TCP || d.Interface != "lo" || d.Ether != 0x0800 || d.TCPFlags != 2 || !d.Source.IsValid() {
		t.Errorf("got %+v", *d)
	}
}
