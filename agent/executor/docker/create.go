package docker

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/weirproject/weir/agent/executor"
)

// create makes what the engine is asked for.
func (x *Executor) create(l executor.Launch, cgroupDriver string) (client.ContainerCreateOptions, error) {
	spec, c := l.Spec, l.Spec.Container
	config := &container.Config{
		Image: c.Image, Hostname: l.Host, User: spec.User, Tty: c.TTY, Env: l.Env,
		Labels: map[string]string{LabelTask: spec.ID, LabelNode: x.options.Node},
	}
	for name, value := range spec.Labels {
		if _, ours := config.Labels[name]; !ours {
			config.Labels[name] = value
		}
	}
	if spec.Command != "" {
		config.Entrypoint, config.Cmd = []string{"/bin/sh", "-c"}, []string{spec.Command}
	} else {
		config.Cmd = spec.Args
	}
	host := &container.HostConfig{
		NetworkMode: "host", Privileged: c.Privileged, ReadonlyRootfs: c.ReadOnly,
		CapAdd: c.AddCapabilities, CapDrop: c.DropCapabilities, Binds: binds(l),
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "5"}},
	}
	if l.Netns != "" {
		host.NetworkMode = "none" // the namespace is the engine's, what is in it is ours
	}
	x.limit(l, host)
	if cgroupDriver == "cgroupfs" { // systemd's wants slices, which would be elsewhere
		host.CgroupParent = "/" + x.options.Parent
	}
	if err := apply(config, host, c.Parameters); err != nil {
		return client.ContainerCreateOptions{}, err
	}
	return client.ContainerCreateOptions{Name: containerName(l), Config: config, HostConfig: host}, nil
}

func (x *Executor) limit(l executor.Launch, host *container.HostConfig) {
	spec := l.Spec
	host.CPUShares = max(2, int64(spec.CPUs*1024))
	host.NanoCPUs = int64(spec.CPULimit * 1e9)
	host.Memory, host.MemorySwap = int64(spec.Memory), int64(spec.Memory)
	if x.options.MaxPIDs > 0 {
		pids := int64(x.options.MaxPIDs)
		host.PidsLimit = &pids
	}
}

// binds are the sandbox, the task's own files and the spec's volumes.
func binds(l executor.Launch) []string {
	all := []string{l.Sandbox + ":" + executor.SandboxInside}
	for _, target := range slices.Sorted(maps.Keys(l.Files)) {
		all = append(all, l.Files[target]+":"+target+":ro")
	}
	for _, v := range l.Spec.Container.Volumes {
		source, target := v.HostPath, v.ContainerPath
		if !filepath.IsAbs(source) { // or else it were the name of a volume of the engine's
			source = filepath.Join(l.Sandbox, filepath.Clean("/"+source))
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(executor.SandboxInside, target)
		}
		if v.ReadOnly {
			target += ":ro"
		}
		all = append(all, source+":"+target)
	}
	return all
}
