package scheduler

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weirproject/weir/api"
)

// environment is a task's, as Marathon gives it; what the app itself sets goes
// above. The node adds MESOS_SANDBOX.
func environment(a *api.App, id string, n *Node, ports []port) map[string]string {
	env := map[string]string{
		"MARATHON_APP_ID": a.ID, "MARATHON_APP_VERSION": a.Version,
		"MARATHON_APP_RESOURCE_CPUS": decimal(a.CPUs), "MARATHON_APP_RESOURCE_MEM": decimal(a.Mem),
		"MARATHON_APP_RESOURCE_DISK": decimal(a.Disk), "MARATHON_APP_RESOURCE_GPUS": strconv.Itoa(a.GPUs),
		"MESOS_TASK_ID": id, "HOST": host(n),
	}
	if a.Container != nil && a.Container.Docker != nil {
		env["MARATHON_APP_DOCKER_IMAGE"] = a.Container.Docker.Image
	}
	labels(env, a.Labels)
	portVariables(env, ports)
	for name, value := range a.Env {
		if text, ok := value.(string); ok {
			env[name] = text
		}
	}
	return env
}

// host is where others reach the node: its name is not one that everybody can
// resolve.
func host(n *Node) string {
	if len(n.Addresses) > 0 {
		return n.Addresses[0].String()
	}
	return n.Name
}

// decimal writes a number with at least one digit behind the point, as
// Marathon's language does.
func decimal(n float64) string {
	text := strconv.FormatFloat(n, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// labels tells the labels that fit into variables: names of them that do not are
// written with underscores, and long values are left out, as in Marathon.
func labels(env map[string]string, all map[string]string) {
	const longest = 512
	var names []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if len(all[key]) > longest {
			continue
		}
		name := variable(key)
		names = append(names, name)
		env["MARATHON_APP_LABEL_"+name] = all[key]
	}
	env["MARATHON_APP_LABELS"] = strings.Join(names, " ")
}

func variable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, text)
}

func portVariables(env map[string]string, ports []port) {
	var list []string
	for i := range ports {
		p := &ports[i]
		text := strconv.Itoa(int(p.effective()))
		list = append(list, text)
		env["PORT"+strconv.Itoa(i)] = text
		if p.asked != 0 {
			env["PORT_"+strconv.Itoa(p.asked)] = text
		}
		if p.name != "" {
			env["PORT_"+variable(p.name)] = text
		}
	}
	if len(list) > 0 {
		env["PORT"], env["PORTS"] = list[0], strings.Join(list, ",")
	}
}
