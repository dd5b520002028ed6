package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weirproject/weir/agent"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/testenv"
)

// role has the test's own binary be the plugin or an agent.
const role = "WEIR_CNI_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "plugin":
		main()
		os.Exit(0)
	case "agent":
		if err := runAgent(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runAgent runs one that does nothing but networks, in a folder.
func runAgent(dir string) error {
	c := agent.DefaultConfig()
	c.Node.Name, c.Node.Addresses = "a1", []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	c.State, c.RunDir, c.DataDir = []string{filepath.Join(dir, "state")}, filepath.Join(dir, "run"), filepath.Join(dir, "data")
	c.VIP.Dataplane, c.Zones.Mode, c.Metrics.Listen, c.DNS.Listen = "off", "off", "", nil
	a, err := agent.New(agent.Options{Config: c, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	return a.Run(context.Background())
}

// rig is an agent in a network namespace of its own.
type rig struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	ns  *exec.Cmd // holds the node's network namespace
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testenv.NeedNetns(t)
	r := &rig{t: t, dir: t.TempDir()}
	for _, sub := range []string{"state", "run", "data"} {
		if err := os.Mkdir(filepath.Join(r.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.ns = sandbox(t)
	r.start()
	return r
}

// sandbox is a process in a new network namespace.
func sandbox(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func spacePath(cmd *exec.Cmd) string { return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid) }

func (r *rig) start() {
	r.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	r.cmd = exec.Command("nsenter", "--net="+spacePath(r.ns), exe, r.dir)
	r.cmd.Env = append(os.Environ(), role+"=agent")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	r.cmd.Stderr = &log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.cmd
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("agent:\n%s", log.String())
		}
	})
	c, err := client.New(r.socket())
	if err != nil {
		r.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s, err := c.Status(r.t.Context()); err == nil && len(s.Components) > 0 && s.Revision > 0 {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("the agent does not answer")
		}
	}
}

func (r *rig) socket() string { return filepath.Join(r.dir, "run", "agent.sock") }

// call runs the plugin as a runtime does.
func (r *rig) call(verb, container, space string, extra map[string]any, env ...string) (out []byte, code float64) {
	r.t.Helper()
	conf := map[string]any{"cniVersion": "1.1.0", "name": "weir", "type": "weir-cni", "network": "bridge", "socket": r.socket()}
	for k, v := range extra {
		conf[k] = v
	}
	stdin, _ := json.Marshal(conf)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"=plugin", "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_NETNS="+space, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err == nil {
		return out, -1
	}
	var fault struct {
		Code float64 `json:"code"`
		Msg  string  `json:"msg"`
	}
	if json.Unmarshal(out, &fault) != nil || fault.Msg == "" {
		r.t.Fatalf("%s fails (%v) with no error of CNI: %s%s", verb, err, out, told.String())
	}
	return out, fault.Code
}

func (r *rig) add(container, space string, extra map[string]any, env ...string) *current.Result {
	r.t.Helper()
	out, code := r.call("ADD", container, space, extra, env...)
	if code != -1 {
		r.t.Fatalf("ADD %s: %s", container, out)
	}
	result := &current.Result{}
	if err := json.Unmarshal(out, result); err != nil {
		r.t.Fatalf("read the result %s: %v", out, err)
	}
	return result
}

func inside(t *testing.T, space string, argv ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + space}, argv...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// reaches checks that a host answers: by refusing, since nobody listens.
func reaches(t *testing.T, space string, to net.IP) {
	t.Helper()
	out, _ := exec.Command("nsenter", "--net="+space, "timeout", "10", "bash", "-c", "exec 3<>/dev/tcp/"+to.String()+"/9").CombinedOutput()
	if !strings.Contains(string(out), "refused") {
		t.Errorf("%s does not answer: %s", to, out)
	}
}

// previous is a result as runtimes hand it back.
func previous(t *testing.T, r *current.Result) map[string]any {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"prevResult": m}
}

func TestAContainersLifeByCNI(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	box := sandbox(t)
	if out, code := r.call("STATUS", "", "", nil); code != -1 {
		t.Fatalf("STATUS: %s", out)
	}
	result := r.add("c1", spacePath(box), map[string]any{"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}},
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1")
	if len(result.IPs) != 2 || len(result.Interfaces) != 2 || len(result.Routes) != 2 || result.CNIVersion != "1.1.0" {
		t.Fatalf("the result is %+v", result)
	}
	if at := result.IPs[0].Interface; at == nil || result.Interfaces[*at].Sandbox != spacePath(box) || result.Interfaces[*at].Name != "eth0" {
		t.Errorf("the address is not of the container's interface: %+v", result.Interfaces)
	}
	for _, ip := range result.IPs {
		if held := inside(t, spacePath(box), "ip", "addr", "show", "dev", "eth0"); !strings.Contains(held, ip.Address.String()) {
			t.Errorf("the container has not %s: %s", ip.Address.String(), held)
		}
		reaches(t, spacePath(box), ip.Gateway)
	}
	if out, code := r.call("CHECK", "c1", spacePath(box), previous(t, result)); code != -1 {
		t.Errorf("CHECK: %s", out)
	}
	c, _ := client.New(r.socket())
	all, err := c.Attachments(t.Context())
	if err != nil || len(all) != 1 || all[0].App != "/shop/web-1" || len(all[0].Ports) != 1 {
		t.Errorf("attachments: %+v, %v", all, err)
	}
	inside(t, spacePath(box), "ip", "addr", "flush", "dev", "eth0")
	if _, code := r.call("CHECK", "c1", spacePath(box), previous(t, result)); code == -1 {
		t.Error("CHECK finds nothing wrong with a container that lost its addresses")
	}
	for range 2 {
		if out, code := r.call("DEL", "c1", spacePath(box), nil); code != -1 {
			t.Errorf("DEL: %s", out)
		}
	}
	if _, code := r.call("CHECK", "c1", spacePath(box), previous(t, result)); code != 3 {
		t.Errorf("CHECK after DEL has the code %v, want 3", code)
	}
	if held := inside(t, spacePath(r.ns), "ip", "link"); strings.Contains(held, "weir") {
		t.Errorf("after the last container something is left: %s", held)
	}
	if out := inside(t, spacePath(r.ns), "nft", "list", "tables"); strings.Contains(out, "weir-containers") {
		t.Errorf("after the last container a table is left: %s", out)
	}
}

func TestDeadContainersAreCollected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alive, dead, gone := sandbox(t), sandbox(t), sandbox(t)
	r.add("alive", spacePath(alive), nil)
	r.add("dead", spacePath(dead), nil)
	r.add("gone", spacePath(gone), nil)
	other := r.add("other", spacePath(sandbox(t)), map[string]any{"name": "other"})
	_ = gone.Process.Kill()
	_ = gone.Wait()
	c, _ := client.New(r.socket())
	count := func() int {
		all, err := c.Attachments(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for end := time.Now().Add(30 * time.Second); count() != 3 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if n := count(); n != 3 {
		t.Errorf("%d are attached after one's namespace is gone, want 3", n)
	}
	if out, code := r.call("GC", "", "", map[string]any{"cni.dev/valid-attachments": []map[string]string{{"containerID": "alive", "ifname": "eth0"}}}); code != -1 {
		t.Fatalf("GC: %s", out)
	}
	if n := count(); n != 2 {
		t.Errorf("%d are attached after GC, want 2: the one alive and the one of another configuration", n)
	}
	// What was alive keeps working when the agent dies and comes back.
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	reaches(t, spacePath(alive), other.IPs[0].Address.IP)
	before := inside(t, spacePath(r.ns), "ip", "-o", "link")
	r.start()
	if after := inside(t, spacePath(r.ns), "ip", "-o", "link"); after != before {
		t.Errorf("a restart changed\n%sinto\n%s", before, after)
	}
	reaches(t, spacePath(alive), other.IPs[0].Address.IP)
}

func TestWhatCannotBeDoneIsToldByCode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	box := spacePath(sandbox(t))
	r.add("first", box, map[string]any{"runtimeConfig": map[string]any{"ips": []string{"172.31.254.77/24"}, "portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80}}}})
	for name, one := range map[string]struct {
		extra map[string]any
		space string
		code  float64
	}{
		"unknown network":  {map[string]any{"network": "nowhere"}, box, 7},
		"ipam":             {map[string]any{"ipam": map[string]any{"type": "host-local"}}, box, 2},
		"port at one host": {map[string]any{"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 81, "hostIP": "192.0.2.1"}}}}, box, 2},
		"protocol":         {map[string]any{"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 81, "protocol": "sctp"}}}}, box, 2},
		"taken address":    {map[string]any{"runtimeConfig": map[string]any{"ips": []string{"172.31.254.77"}}}, box, 999},
		"taken port":       {map[string]any{"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80}}}}, box, 999},
		"foreign address":  {map[string]any{"runtimeConfig": map[string]any{"ips": []string{"203.0.113.9"}}}, box, 999},
		"no agent":         {map[string]any{"socket": "/nonexistent.sock"}, box, 11},
		"unknown version":  {map[string]any{"cniVersion": "9.0.0"}, box, 1},
	} {
		if out, code := r.call("ADD", "second", one.space, one.extra); code != one.code {
			t.Errorf("%s: code %v, want %v: %s", name, code, one.code, out)
		}
	}
	if out, code := r.call("STATUS", "", "", map[string]any{"socket": "/nonexistent.sock"}); code != 50 {
		t.Errorf("STATUS without an agent: %v, want 50: %s", code, out)
	}
	if out, code := r.call("VERSION", "", "", nil); code != -1 || !strings.Contains(string(out), "1.1.0") {
		t.Errorf("VERSION: %s", out)
	}
	// An older runtime gets what it understands.
	out, code := r.call("ADD", "old", spacePath(sandbox(t)), map[string]any{"cniVersion": "0.3.1"})
	var old struct {
		CNIVersion string `json:"cniVersion"`
		IPs        []struct {
			Version string `json:"version"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &old); err != nil || code != -1 || old.CNIVersion != "0.3.1" || len(old.IPs) != 2 || old.IPs[0].Version != "4" {
		t.Errorf("ADD of version 0.3.1: %s", out)
	}
}

func TestAPublishedPortIsReachedFromOutside(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	outside, box := sandbox(t), sandbox(t)
	inside(t, spacePath(r.ns), "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", fmt.Sprint(outside.Process.Pid))
	for space, address := range map[string]string{spacePath(r.ns): "192.0.2.1/24", spacePath(outside): "192.0.2.2/24"} {
		inside(t, space, "ip", "addr", "add", address, "dev", "up0")
		inside(t, space, "ip", "link", "set", "up0", "up")
	}
	r.add("c1", spacePath(box), map[string]any{"runtimeConfig": map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80}}}})
	server := exec.Command("nsenter", "--net="+spacePath(box), "bash", "-c", "exec python3 -m http.server 80")
	server.Dir = t.TempDir()
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := exec.Command("nsenter", "--net="+spacePath(outside), "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3").CombinedOutput()
		if err == nil && strings.Contains(string(out), "200 OK") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the port is not reached: %v\n%s", err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestTheExampleOfTheDocumentationWorks(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/networks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "```json\n")
	text, _, closed := strings.Cut(text, "```")
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil || !found || !closed || len(list.Plugins) != 1 {
		t.Fatalf("the example is no list of one plugin: %v", err)
	}
	r := newRig(t)
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	result := r.add("c1", spacePath(sandbox(t)), conf)
	if len(result.IPs) == 0 {
		t.Errorf("the result is %+v", result)
	}
}
