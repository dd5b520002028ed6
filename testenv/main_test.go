package testenv

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The test binary is also the programs that tests run: by the name of
// weir-agent a small agent, and with upVariable set a process that brings a lab
// up and can be killed meanwhile.
const upVariable = "TESTENV_UP"

func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == AgentBinaryName:
		fakeAgent()
	case os.Getenv(upVariable) != "":
		root, file, _ := strings.Cut(os.Getenv(upVariable), ":")
		if _, err := Up(context.Background(), Options{File: file, Root: root, AgentBinary: os.Getenv("TESTENV_AGENT")}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeAgent serves /readyz like the real one. Files in its state folder make it
// fail: "ends" at once, "unready" for good.
func fakeAgent() {
	fmt.Println("fake agent starts")
	if _, err := os.Stat("/etc/weir/state.d/ends"); err == nil {
		fmt.Println("fake agent was told to end")
		os.Exit(3)
	}
	_ = os.Remove("/run/weir/agent.sock")
	listener, err := net.Listen("unix", "/run/weir/agent.sock")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	began := time.Now()
	err = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat("/etc/weir/state.d/unready"); err == nil || time.Since(began) < 30*time.Millisecond {
			http.Error(w, "waiting for its state", http.StatusServiceUnavailable)
			return
		}
		host, _ := os.Hostname()
		fmt.Fprintln(w, "ready", host, r.URL.Path)
	}))
	fmt.Println(err)
	os.Exit(1)
}

// fakeAgentBinary is the test binary under the agent's name.
func fakeAgentBinary(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), AgentBinaryName)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// testRoot is a folder for labs that DownAll may end.
func testRoot(t testing.TB) string {
	return filepath.Join("/run", fmt.Sprintf("weir-test-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffffff))
}

// output runs a command on a host and fails the test when it fails.
func output(t testing.TB, l *Lab, host string, argv ...string) string {
	t.Helper()
	out, err := l.Command(host, argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("on %s: %s: %v\n%s", host, strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// reaches sends one ARP request or ping's worth of traffic: a TCP connection to
// a port where nobody listens, which a reachable host refuses at once.
func reaches(l *Lab, from, address string) bool {
	refused := false
	_ = l.Do(from, func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(address, "9"), 400*time.Millisecond)
		if err == nil {
			c.Close()
		}
		refused = err != nil && strings.Contains(err.Error(), "refused")
		return nil
	})
	return refused
}

func listenUDP(address string) (net.PacketConn, error) {
	return net.ListenPacket("udp", net.JoinHostPort(address, "0"))
}

func sendUDP(address string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err
}
