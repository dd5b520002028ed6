package executor

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// SandboxInside is where a container finds its sandbox.
const SandboxInside = "/mnt/mesos/sandbox"

// environment of a task: what the node knows, then what the spec has, which
// wins but for the sandbox, whose place the node alone knows.
func (s *Supervisor) environment(l Launch) []string {
	spec := l.Spec
	env := map[string]string{"HOST": s.options.Host(), "MESOS_TASK_ID": spec.ID, "MARATHON_APP_ID": spec.App}
	if spec.Runtime == api.RuntimeProcess {
		env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	var ports []string
	for i, p := range spec.Ports {
		port := p.HostPort
		if port == 0 {
			port = p.Port
		}
		text := strconv.Itoa(int(port))
		if i == 0 {
			env["PORT"] = text
		}
		ports = append(ports, text)
		env["PORT"+strconv.Itoa(i)] = text
		if p.Port != 0 {
			env["PORT_"+strconv.Itoa(int(p.Port))] = text
		}
		if p.Name != "" {
			env["PORT_"+strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(p.Name))] = text
		}
	}
	if len(ports) > 0 {
		env["PORTS"] = strings.Join(ports, ",")
	}
	maps.Copy(env, spec.Env)
	inside := l.Sandbox
	if spec.Runtime != api.RuntimeProcess {
		inside = SandboxInside
	}
	env["MESOS_SANDBOX"], env["MESOS_DIRECTORY"] = inside, l.Sandbox
	all := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		all = append(all, name+"="+env[name])
	}
	return all
}

// wantsNetns tells whether a task is in networks other than the node's.
func wantsNetns(spec api.TaskSpec) bool {
	return slices.ContainsFunc(spec.Networks, func(n api.TaskNetwork) bool { return n.Name != "host" })
}

// hostName makes a host name of a task's id: a label of at most 63 bytes.
func hostName(id string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(id))
	return strings.Trim(name[max(0, len(name)-63):], "-")
}

// writeNames writes the task's resolv.conf and hosts.
func (t *task) writeNames(addresses []netip.Addr) error {
	var conf []byte
	if t.s.options.ResolvConf != nil {
		conf = t.s.options.ResolvConf()
	}
	if conf == nil {
		conf, _ = os.ReadFile("/etc/resolv.conf") // a node without one has tasks without one
	}
	hosts := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	for _, a := range addresses {
		hosts += fmt.Sprintf("%s %s\n", a, t.launch.Host)
	}
	if len(addresses) == 0 {
		hosts += "127.0.1.1 " + t.launch.Host + "\n"
	}
	if err := os.WriteFile(filepath.Join(t.launch.Dir, "resolv.conf"), conf, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.launch.Dir, "hosts"), []byte(hosts), 0o644)
}
