package docker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/weirproject/weir/api"
)

// parameters are the options of docker run that are taken over. What a task's
// spec has a field for, and what would part the task from us (its name, restarts,
// detaching, its log), is none of them.
var parameters = map[string]func(*container.Config, *container.HostConfig, string) error{
	"add-host": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.ExtraHosts = append(h.ExtraHosts, v)
		return nil
	},
	"cap-add": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.CapAdd = append(h.CapAdd, v)
		return nil
	},
	"cap-drop": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.CapDrop = append(h.CapDrop, v)
		return nil
	},
	"cpuset-cpus": func(_ *container.Config, h *container.HostConfig, v string) error { h.CpusetCpus = v; return nil },
	"entrypoint": func(c *container.Config, _ *container.HostConfig, v string) error {
		c.Entrypoint = []string{v}
		return nil
	},
	"env": func(c *container.Config, _ *container.HostConfig, v string) error {
		c.Env = append(c.Env, v)
		return nil
	},
	"group-add": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.GroupAdd = append(h.GroupAdd, v)
		return nil
	},
	"hostname": func(c *container.Config, _ *container.HostConfig, v string) error { c.Hostname = v; return nil },
	"init": func(_ *container.Config, h *container.HostConfig, v string) error {
		on, err := strconv.ParseBool(v)
		h.Init = &on
		return err
	},
	"ipc": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.IpcMode = container.IpcMode(v)
		return nil
	},
	"label": func(c *container.Config, _ *container.HostConfig, v string) error {
		name, value, _ := strings.Cut(v, "=")
		if name == LabelTask || name == LabelNode {
			return fmt.Errorf("label %s is ours", name)
		}
		c.Labels[name] = value
		return nil
	},
	"oom-score-adj": func(_ *container.Config, h *container.HostConfig, v string) (err error) {
		h.OomScoreAdj, err = strconv.Atoi(v)
		return err
	},
	"pid": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.PidMode = container.PidMode(v)
		return nil
	},
	"privileged": func(_ *container.Config, h *container.HostConfig, v string) (err error) {
		h.Privileged, err = strconv.ParseBool(v)
		return err
	},
	"read-only": func(_ *container.Config, h *container.HostConfig, v string) (err error) {
		h.ReadonlyRootfs, err = strconv.ParseBool(v)
		return err
	},
	"security-opt": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.SecurityOpt = append(h.SecurityOpt, v)
		return nil
	},
	"shm-size": func(_ *container.Config, h *container.HostConfig, v string) (err error) {
		h.ShmSize, err = size(v)
		return err
	},
	"stop-signal": func(c *container.Config, _ *container.HostConfig, v string) error { c.StopSignal = v; return nil },
	"sysctl":      func(_ *container.Config, h *container.HostConfig, v string) error { return pair(&h.Sysctls, v, "=") },
	"tmpfs":       func(_ *container.Config, h *container.HostConfig, v string) error { return pair(&h.Tmpfs, v, ":") },
	"ulimit":      func(_ *container.Config, h *container.HostConfig, v string) error { return ulimit(h, v) },
	"user":        func(c *container.Config, _ *container.HostConfig, v string) error { c.User = v; return nil },
	"volume": func(_ *container.Config, h *container.HostConfig, v string) error {
		h.Binds = append(h.Binds, v)
		return nil
	},
	"workdir": func(c *container.Config, _ *container.HostConfig, v string) error { c.WorkingDir = v; return nil },
}

// apply refuses by name what is not known.
func apply(c *container.Config, h *container.HostConfig, list []api.DockerParam) error {
	for i, p := range list {
		set := parameters[p.Key]
		if set == nil {
			return fmt.Errorf("container.parameters[%d]: %q is not taken over from docker run", i, p.Key)
		}
		if err := set(c, h, p.Value); err != nil {
			return fmt.Errorf("container.parameters[%d]: %s: %w", i, p.Key, err)
		}
	}
	return nil
}

func pair(to *map[string]string, text, between string) error {
	if *to == nil {
		*to = map[string]string{}
	}
	name, value, _ := strings.Cut(text, between)
	(*to)[name] = value
	return nil
}

// size reads bytes as docker run does: 64m, 1g, 1024.
func size(text string) (int64, error) {
	units := []string{"b", "k", "m", "g"}
	number := strings.TrimSuffix(strings.ToLower(text), "b")
	shift := 0
	if number != "" {
		if i := slices.Index(units, number[len(number)-1:]); i > 0 {
			number, shift = number[:len(number)-1], 10*i
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size, such as 64m", text)
	}
	return n << shift, nil
}

func ulimit(h *container.HostConfig, text string) error {
	name, limits, ok := strings.Cut(text, "=")
	soft, hard, both := strings.Cut(limits, ":")
	if !both {
		hard = soft
	}
	low, err := strconv.ParseInt(soft, 10, 64)
	high, other := strconv.ParseInt(hard, 10, 64)
	if !ok || err != nil || other != nil {
		return fmt.Errorf("%q is no limit, such as nofile=1024:2048", text)
	}
	h.Ulimits = append(h.Ulimits, &container.Ulimit{Name: name, Soft: low, Hard: high})
	return nil
}
