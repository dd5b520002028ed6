package api

import "net/netip"

// TaskSpec is a task that a node shall run: everything is decided, addresses
// and ports included. It is immutable; a changed app has tasks with new ids.
type TaskSpec struct {
	ID  string `json:"id"`
	App string `json:"app"`
	// Runtime is process, container or docker.
	Runtime Runtime `json:"runtime"`
	// Command is run by /bin/sh -c. Args are run as they are, or are given to the
	// image's entrypoint where it has one. Neither leaves the image as it is.
	Command string            `json:"command,omitempty"`
	Args    []string          `json:"args,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// User that it runs as, of the node or of the image; empty means root.
	User string `json:"user,omitempty"`
	// CPUs are shares of cores; Memory and Disk are bytes, 0 for no limit.
	CPUs      float64        `json:"cpus"`
	CPULimit  float64        `json:"cpu_limit,omitempty"` // cores that it may use at most; 0: no limit
	Memory    uint64         `json:"memory"`
	Disk      uint64         `json:"disk,omitempty"`
	GPUs      int            `json:"gpus,omitempty"`
	Container *ContainerSpec `json:"container,omitempty"`
	// Networks that it is in; empty means the node's own.
	Networks []TaskNetwork `json:"networks,omitempty"`
	Ports    []TaskPort    `json:"ports,omitempty"`
	Fetch    []Fetch       `json:"fetch,omitempty"`
	Checks   []TaskCheck   `json:"checks,omitempty"`
	Ready    *TaskCheck    `json:"ready,omitempty"`
	// Grace is how long it may take to end after SIGTERM, before SIGKILL.
	Grace Duration `json:"grace"`
	// Kill tells the node to end it. The spec stays until it has ended.
	Kill bool `json:"kill,omitempty"`
}

// Runtime runs tasks.
type Runtime string

// The runtimes.
const (
	RuntimeProcess   Runtime = "process"   // a plain process in a cgroup of its own
	RuntimeContainer Runtime = "container" // an OCI image, without a daemon
	RuntimeDocker    Runtime = "docker"    // by the Docker Engine of the node
)

// ContainerSpec is what a task in an image has more than a process.
type ContainerSpec struct {
	// Image is in a registry; oci:/PATH[:TAG] is an OCI layout and
	// docker-archive:/PATH what docker save writes, for container alone.
	Image      string        `json:"image"`
	ForcePull  bool          `json:"force_pull,omitempty"`
	Privileged bool          `json:"privileged,omitempty"`
	ReadOnly   bool          `json:"read_only,omitempty"` // the root file system
	TTY        bool          `json:"tty,omitempty"`
	Volumes    []Volume      `json:"volumes,omitempty"`
	Parameters []DockerParam `json:"parameters,omitempty"` // of docker run
	// Capabilities to keep beside, or to drop from, the default ones, such as
	// NET_ADMIN.
	AddCapabilities  []string `json:"add_capabilities,omitempty"`
	DropCapabilities []string `json:"drop_capabilities,omitempty"`
}

// DockerParam is an option of docker run, without its dashes.
type DockerParam struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Volume is a folder of the node, or of the task's sandbox, in a container.
type Volume struct {
	ContainerPath string `json:"container_path"`
	// HostPath on the node; a relative one is below the sandbox.
	HostPath string `json:"host_path"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// TaskNetwork is a task's place in a network.
type TaskNetwork struct {
	// Name of the network, "host" or "bridge" included.
	Name string `json:"name"`
	// Addresses that the controller has decided; empty: the node picks from its
	// subnet.
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// Fetch is a file that is brought into the sandbox before the start.
type Fetch struct {
	URI        string `json:"uri"`
	Extract    bool   `json:"extract,omitempty"`
	Executable bool   `json:"executable,omitempty"`
	Cache      bool   `json:"cache,omitempty"`
	Path       string `json:"path,omitempty"`   // below the sandbox; empty: the URI's last part
	SHA256     string `json:"sha256,omitempty"` // in hex; checked when given
}

// TaskCheck is a check of a task, done by its node.
type TaskCheck struct {
	// Kind is http, https, tcp, grpc or command.
	Kind string `json:"kind"`
	Path string `json:"path,omitempty"`
	// Port where the task is asked: at loopback with Inside, or else at its own
	// address, or at the node's where it has none.
	Port    uint16 `json:"port,omitempty"`
	Command string `json:"command,omitempty"`
	// Inside asks from inside the task's network namespace.
	Inside   bool     `json:"inside,omitempty"`
	IPv6     bool     `json:"ipv6,omitempty"`
	Grace    Duration `json:"grace,omitzero"` // failures before the first success do not count for so long
	Delay    Duration `json:"delay,omitzero"` // before the first check
	Interval Duration `json:"interval"`
	Timeout  Duration `json:"timeout"`
	// Failures in a row after which the task is killed; 0: never.
	Failures   int   `json:"failures"`
	IgnoreHTTP bool  `json:"ignore_http_1xx,omitempty"`
	Codes      []int `json:"codes,omitempty"` // that are good; empty: 200 to 399
}
