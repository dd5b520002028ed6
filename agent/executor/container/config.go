package container

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/weirproject/weir/agent/executor"
	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// newConfig makes the runtime's config.json. Limits are not in it, for the shim
// sets them on the cgroup, which the container joins.
func newConfig(l executor.Launch, i image, who shim.User, home, group string) (*specs.Spec, error) {
	args, err := arguments(l.Spec, i)
	if err != nil {
		return nil, err
	}
	mounts, err := volumes(l)
	if err != nil {
		return nil, err
	}
	c := l.Spec.Container
	privileged := c.Privileged
	config := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Readonly: c.ReadOnly},
		Process: &specs.Process{
			Args: args, Env: environment(i.Config.Env, l.Env, home), Cwd: cmp.Or(i.Config.WorkingDir, "/"),
			User: specs.User{UID: uint32(who.UID), GID: uint32(who.GID)},
		},
		Hostname: l.Host,
		Mounts:   slices.Concat(baseMounts(privileged), fileMounts(l), mounts),
		Linux: &specs.Linux{
			CgroupsPath: group,
			Namespaces:  namespaces(l),
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: privileged, Access: "rwm"}}},
		},
	}
	for _, g := range who.Groups {
		config.Process.User.AdditionalGids = append(config.Process.User.AdditionalGids, uint32(g))
	}
	if config.Hostname == "" {
		config.Hostname, _ = os.Hostname() // it is in the node's network, and so has its name
	}
	if config.Process.Capabilities, err = capabilities(c, who.UID == 0); err != nil {
		return nil, err
	}
	if !privileged {
		config.Linux.MaskedPaths, config.Linux.ReadonlyPaths = masked, readOnly
		config.Linux.Seccomp = seccomp(config.Process.Capabilities.Bounding)
	}
	return config, nil
}

// arguments of the first process: a command is the shell's, args are the
// image's entrypoint's, and neither leaves the image as it is.
func arguments(spec api.TaskSpec, i image) ([]string, error) {
	args := slices.Concat(i.Config.Entrypoint, i.Config.Cmd)
	switch {
	case spec.Command != "":
		args = []string{"/bin/sh", "-c", spec.Command}
	case len(spec.Args) > 0:
		args = slices.Concat(i.Config.Entrypoint, spec.Args)
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("image %s has no entrypoint, and neither command nor args are given", i.Reference)
	}
	return args, nil
}

// environment of the image, under that of the task.
func environment(image, task []string, home string) []string {
	names := map[string]bool{}
	var all []string
	for _, list := range [][]string{task, image, {defaultPath, "HOME=" + home}} {
		for _, v := range list {
			name, _, _ := strings.Cut(v, "=")
			if !names[name] {
				names[name] = true
				all = append(all, v)
			}
		}
	}
	return all
}

func namespaces(l executor.Launch) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}}
	if l.Netns != "" {
		all = append(all, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: l.Netns})
	}
	return all
}

// baseMounts are those of every container.
func baseMounts(privileged bool) []specs.Mount {
	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}}
	if privileged {
		sys.Options = []string{"nosuid", "noexec", "nodev"}
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sys,
	}
}

// fileMounts put the task's own files, or the node's where it is in the node's
// network, in the place of the image's.
func fileMounts(l executor.Launch) []specs.Mount {
	files := l.Files
	if len(files) == 0 {
		files = map[string]string{"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
	}
	var all []specs.Mount
	for _, target := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		source, err := filepath.EvalSymlinks(files[target])
		if err != nil {
			continue // a node without one has containers without one
		}
		all = append(all, specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"bind", "ro", "nosuid", "noexec", "nodev"}})
	}
	return append(all, specs.Mount{Destination: executor.SandboxInside, Type: "bind", Source: l.Sandbox, Options: []string{"rbind", "rw"}})
}

// volumes are the spec's. A relative path of the node is below the sandbox, and
// is made; an absolute one must be there.
func volumes(l executor.Launch) ([]specs.Mount, error) {
	var all []specs.Mount
	for i, v := range l.Spec.Container.Volumes {
		field := fmt.Sprintf("container.volumes[%d]", i)
		source, target := v.HostPath, v.ContainerPath
		if !filepath.IsAbs(source) {
			root, err := os.OpenRoot(l.Sandbox)
			if err != nil {
				return nil, err
			}
			err = root.MkdirAll(filepath.Clean(source), 0o755)
			root.Close()
			if err != nil {
				return nil, fmt.Errorf("%s.host_path: %w", field, err)
			}
			source = filepath.Join(l.Sandbox, source)
		} else if _, err := os.Stat(source); err != nil {
			return nil, fmt.Errorf("%s.host_path: %w", field, err)
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(executor.SandboxInside, target)
		}
		mode := "rw"
		if v.ReadOnly {
			mode = "ro"
		}
		all = append(all, specs.Mount{Destination: filepath.Clean(target), Type: "bind", Source: source, Options: []string{"rbind", mode}})
	}
	return all, nil
}

// masked and readOnly are what shows or changes the node itself.
var (
	masked = []string{
		"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// architectures whose system calls a node of ours understands.
func architectures() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}
