package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

// kernelDetail is what the status says of the component.
func kernelDetail(s api.Status) (backend, detail string) {
	for _, c := range s.Components {
		if c.Name == "dns-kernel" {
			return c.Backend, c.Detail
		}
	}
	return "", ""
}

// answeredInKernel is how many queries the kernel has answered, by the metrics.
func (r *agentRig) answeredInKernel() int {
	r.t.Helper()
	total := 0
	for _, line := range strings.Split(command(r.t, "curl", "-s", "http://127.0.0.1:9153/metrics"), "\n") {
		var n int
		if strings.HasPrefix(line, "weir_dns_kernel_answered_total{") {
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n); err == nil {
				total += n
			}
		}
	}
	return total
}

func TestTheKernelAnswersForTheProxyUntilItIsSwitchedOff(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	command(t, "sh", "-ec", "ip link add docker0 type bridge; ip addr add 172.30.0.1/16 dev docker0; ip addr add fd00:30::1/64 dev docker0 nodad; ip link set docker0 up")
	container := space(t, "c0", "docker0", "172.30.0.2/16", "172.30.0.1", "fd00:30::2/64", "fd00:30::1")
	r := newAgentRig(t, "dns: {forward: {.: []}}")
	configure := func(dns string) {
		r.configure(dns)
		text := strings.Replace(command(t, "cat", r.dir+"/agent.yaml"), `metrics: {listen: ""}`, `metrics: {listen: "127.0.0.1:9153"}`, 1)
		r.write("agent.yaml", text)
	}
	configure("dns: {forward: {.: []}}")
	r.start()
	awaitName(t, "db.weir.internal.", "10.0.0.9")
	on := func(s api.Status) bool {
		backend, detail := kernelDetail(s)
		return backend == "tcx" && strings.Contains(detail, "on 1 interfaces")
	}
	r.awaitStatus("the kernel answers", on)
	ask := func(name, want string) { // dig's cookie would go up
		t.Helper()
		var out string
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			out = container.run("dig", "+nocookie", "+tries=1", "+time=2", "+short", "@169.254.53.53", name+".weir.internal")
			if out == want {
				return
			}
		}
		t.Errorf("%s: got %q, want %q", name, out, want)
	}
	before := r.answeredInKernel()
	ask("db", "10.0.0.9")
	if n := r.answeredInKernel(); n <= before {
		t.Errorf("the kernel has answered %d, %d before", n, before)
	}

	// What changes in the table changes in the kernel.
	r.writeState("kind: record\nname: db\ntype: A\ndata: 10.0.0.8\n---\nkind: record\nname: new\ntype: A\ndata: 10.0.0.7\n")
	ask("new", "10.0.0.7")
	ask("db", "10.0.0.8")
	r.writeState("kind: record\nname: new\ntype: A\ndata: 10.0.0.7\n")
	ask("db", "")
	before = r.answeredInKernel()
	ask("new", "10.0.0.7")
	if n := r.answeredInKernel(); n <= before {
		t.Errorf("after changes the kernel has answered %d, %d before", n, before)
	}

	configure("dns: {forward: {.: []}, kernel: \"off\"}")
	r.awaitStatus("it is switched off", func(s api.Status) bool {
		backend, detail := kernelDetail(s)
		return backend == "off" && strings.Contains(detail, "dns.kernel")
	})
	ask("new", "10.0.0.7")
	configure("dns: {forward: {.: []}, kernel_lo: true}")
	r.awaitStatus("it is on again, on lo too", func(s api.Status) bool {
		_, detail := kernelDetail(s)
		return strings.Contains(detail, "on 2 interfaces")
	})
	ask("new", "10.0.0.7")
	before = r.answeredInKernel()
	awaitName(t, "new.weir.internal.", "10.0.0.7")
	if n := r.answeredInKernel(); n <= before {
		t.Errorf("on lo the kernel has answered %d, %d before", n, before)
	}
	configure("dns: {forward: {.: []}, access: {.: [172.30.0.0/16, 169.254.0.0/16]}}")
	r.awaitStatus("it gives way to access rules", func(s api.Status) bool {
		_, detail := kernelDetail(s)
		return strings.Contains(detail, "dns.access")
	})
	ask("new", "10.0.0.7")
}
