package api

import "encoding/json"

// App is an app as people define it: the definition of Marathon, field for
// field, so its keys are Marathon's. What a pointer leaves out has Marathon's
// default, which Defaults fills in.
type App struct {
	// ID is a path of segments, such as /shop/web.
	ID string `json:"id"`
	// Cmd is run by a shell; Args are run as they are. Not both.
	Cmd  string   `json:"cmd,omitempty"`
	Args []string `json:"args,omitempty"`
	// CPUs are cores, Mem and Disk MiB.
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
	GPUs int     `json:"gpus"`
	// Instances that shall run; "*", one on every node that fits.
	Instances             Instances       `json:"instances"`
	AcceptedResourceRoles []string        `json:"acceptedResourceRoles,omitempty"`
	Role                  string          `json:"role,omitempty"`
	Container             *AppContainer   `json:"container,omitempty"`
	Networks              []AppNetwork    `json:"networks,omitempty"`
	PortDefinitions       []AppPort       `json:"portDefinitions,omitempty"`
	RequirePorts          bool            `json:"requirePorts"`
	Env                   map[string]any  `json:"env,omitempty"` // a string, or {"secret": name}
	Secrets               map[string]any  `json:"secrets,omitempty"`
	Labels                Labels          `json:"labels,omitempty"`
	Dependencies          []string        `json:"dependencies,omitempty"`
	Fetch                 []AppFetch      `json:"fetch,omitempty"`
	HealthChecks          []AppCheck      `json:"healthChecks,omitempty"`
	ReadinessChecks       []AppReadiness  `json:"readinessChecks,omitempty"`
	Constraints           [][]string      `json:"constraints,omitempty"`
	UpgradeStrategy       *AppUpgrade     `json:"upgradeStrategy,omitempty"`
	BackoffSeconds        *float64        `json:"backoffSeconds,omitempty"`
	BackoffFactor         *float64        `json:"backoffFactor,omitempty"`
	MaxLaunchDelaySeconds *float64        `json:"maxLaunchDelaySeconds,omitempty"`
	KillSelection         string          `json:"killSelection,omitempty"` // YOUNGEST_FIRST or OLDEST_FIRST
	UnreachableStrategy   *AppUnreachable `json:"unreachableStrategy,omitempty"`
	// TaskKillGracePeriodSeconds between SIGTERM and SIGKILL; nil means 3.
	TaskKillGracePeriodSeconds *float64   `json:"taskKillGracePeriodSeconds,omitempty"`
	ResourceLimits             *AppLimits `json:"resourceLimits,omitempty"`
	User                       string     `json:"user,omitempty"`
	TTY                        bool       `json:"tty,omitempty"`
	// Version is when this version was made, RFC 3339 with milliseconds.
	Version     string          `json:"version,omitempty"`
	VersionInfo *AppVersionInfo `json:"versionInfo,omitempty"`

	// What Marathon does not have.

	// ProgressDeadlineSeconds after which a deployment that makes no progress is
	// rolled back; nil means 600, 0 never.
	ProgressDeadlineSeconds *float64 `json:"progressDeadlineSeconds,omitempty"`
	// Canary starts a few instances of a new version and waits to be promoted.
	Canary *AppCanary `json:"canary,omitempty"`
	// BlueGreen starts the new version whole beside the old one, then switches.
	BlueGreen bool `json:"blueGreen,omitempty"`
	// Spread names fault domains, from host, rack, zone and region, that the
	// instances are spread over as evenly as they fit.
	Spread []string `json:"spread,omitempty"`
}

// Labels are labels of an app or of one of its ports.
type Labels = map[string]string

// Instances is a number of instances, or EveryNode.
type Instances int

// EveryNode is one instance on every node that fits: "*".
const EveryNode Instances = -1

// MarshalJSON implements json.Marshaler.
func (n Instances) MarshalJSON() ([]byte, error) {
	if n == EveryNode {
		return []byte(`"*"`), nil
	}
	return json.Marshal(int(n))
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Instances) UnmarshalJSON(b []byte) error {
	if string(b) == `"*"` {
		*n = EveryNode
		return nil
	}
	return json.Unmarshal(b, (*int)(n))
}

// AppContainer is the container that an app's tasks run in.
type AppContainer struct {
	Type         string           `json:"type,omitempty"` // DOCKER or MESOS
	Docker       *AppDocker       `json:"docker,omitempty"`
	Volumes      []AppVolume      `json:"volumes,omitempty"`
	PortMappings []AppPortMapping `json:"portMappings,omitempty"`
	LinuxInfo    *AppLinuxInfo    `json:"linuxInfo,omitempty"`
	// ReadOnly and User of OCI containers; Marathon does not have them.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// AppDocker is the image of a container, also of one of type MESOS.
type AppDocker struct {
	Image          string        `json:"image"`
	ForcePullImage bool          `json:"forcePullImage"`
	Privileged     bool          `json:"privileged"`
	Parameters     []DockerParam `json:"parameters,omitempty"`
	PullConfig     *AppPull      `json:"pullConfig,omitempty"`
}

// AppPull names the secret with a registry's login.
type AppPull struct {
	Secret string `json:"secret"`
}

// AppVolume is a folder of the node in a container.
type AppVolume struct {
	ContainerPath string          `json:"containerPath"`
	HostPath      string          `json:"hostPath,omitempty"`
	Mode          string          `json:"mode,omitempty"` // RO or RW
	Persistent    json.RawMessage `json:"persistent,omitempty"`
	External      json.RawMessage `json:"external,omitempty"`
	Secret        string          `json:"secret,omitempty"`
}

// AppLinuxInfo has a container's capabilities.
type AppLinuxInfo struct {
	EffectiveCapabilities []string `json:"effectiveCapabilities,omitempty"`
	BoundingCapabilities  []string `json:"boundingCapabilities,omitempty"`
	Seccomp               *struct {
		ProfileName string `json:"profileName,omitempty"`
		Unconfined  bool   `json:"unconfined,omitempty"`
	} `json:"seccomp,omitempty"`
}

// AppPortMapping leads from a node's port to a container's.
type AppPortMapping struct {
	ContainerPort int    `json:"containerPort"`         // 0: the same as the host port
	HostPort      *int   `json:"hostPort,omitempty"`    // nil: not published; 0: any
	ServicePort   int    `json:"servicePort,omitempty"` // 0: allotted, 10000 to 20000
	Protocol      string `json:"protocol,omitempty"`    // tcp, udp or "udp,tcp"
	Name          string `json:"name,omitempty"`
	Labels        Labels `json:"labels,omitempty"`
	// NetworkNames that the port is of; empty means all of the app's.
	NetworkNames []string `json:"networkNames,omitempty"`
}

// AppNetwork is a network that an app's tasks are in.
type AppNetwork struct {
	Mode   string `json:"mode"` // host, container or container/bridge
	Name   string `json:"name,omitempty"`
	Labels Labels `json:"labels,omitempty"`
}

// AppPort is a port of a task on its node's own network.
type AppPort struct {
	Port     int    `json:"port"`
	Protocol string `json:"protocol,omitempty"`
	Name     string `json:"name,omitempty"`
	Labels   Labels `json:"labels,omitempty"`
}

// AppFetch is a file that a task needs.
type AppFetch struct {
	URI        string `json:"uri"`
	Extract    *bool  `json:"extract,omitempty"` // nil means true
	Executable bool   `json:"executable,omitempty"`
	Cache      bool   `json:"cache,omitempty"`
	DestPath   string `json:"destPath,omitempty"`
	OutputFile string `json:"outputFile,omitempty"`
	// SHA256 of the file in hex; Marathon does not have it.
	SHA256 string `json:"sha256,omitempty"`
}

// AppCheck is a health check of an app's tasks. Seconds are seconds.
type AppCheck struct {
	Protocol               string      `json:"protocol,omitempty"` // HTTP, HTTPS, TCP, COMMAND, MESOS_HTTP, MESOS_HTTPS, MESOS_TCP, GRPC
	Path                   string      `json:"path,omitempty"`
	PortIndex              *int        `json:"portIndex,omitempty"`
	Port                   *int        `json:"port,omitempty"`
	Command                *AppCommand `json:"command,omitempty"`
	GracePeriodSeconds     *float64    `json:"gracePeriodSeconds,omitempty"`
	IntervalSeconds        *float64    `json:"intervalSeconds,omitempty"`
	TimeoutSeconds         *float64    `json:"timeoutSeconds,omitempty"`
	MaxConsecutiveFailures *int        `json:"maxConsecutiveFailures,omitempty"`
	DelaySeconds           *float64    `json:"delaySeconds,omitempty"`
	IgnoreHTTP1xx          bool        `json:"ignoreHttp1xx,omitempty"`
	IPProtocol             string      `json:"ipProtocol,omitempty"` // IPv4 or IPv6
}

// AppCommand is a command line for a shell.
type AppCommand struct {
	Value string `json:"value"`
}

// AppReadiness is a check that a new instance must pass in a deployment.
type AppReadiness struct {
	Name                    string   `json:"name,omitempty"`
	Protocol                string   `json:"protocol,omitempty"` // HTTP or HTTPS
	Path                    string   `json:"path,omitempty"`
	PortName                string   `json:"portName,omitempty"`
	IntervalSeconds         *float64 `json:"intervalSeconds,omitempty"`
	TimeoutSeconds          *float64 `json:"timeoutSeconds,omitempty"`
	HTTPStatusCodesForReady []int    `json:"httpStatusCodesForReady,omitempty"`
	PreserveLastResponse    bool     `json:"preserveLastResponse,omitempty"`
}

// AppUpgrade bounds the instances during an upgrade, as shares of Instances.
type AppUpgrade struct {
	MinimumHealthCapacity *float64 `json:"minimumHealthCapacity,omitempty"` // 0 to 1; nil means 1
	MaximumOverCapacity   *float64 `json:"maximumOverCapacity,omitempty"`   // 0 to 1; nil means 1
}

// AppUnreachable says when tasks of a lost node are replaced and forgotten.
// "disabled" means never.
type AppUnreachable struct {
	InactiveAfterSeconds float64 `json:"inactiveAfterSeconds"`
	ExpungeAfterSeconds  float64 `json:"expungeAfterSeconds"`
	Disabled             bool    `json:"-"`
}

// MarshalJSON implements json.Marshaler.
func (u AppUnreachable) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return []byte(`"disabled"`), nil
	}
	type bare AppUnreachable
	return json.Marshal(bare(u))
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *AppUnreachable) UnmarshalJSON(b []byte) error {
	if string(b) == `"disabled"` {
		*u = AppUnreachable{Disabled: true}
		return nil
	}
	type bare AppUnreachable
	return json.Unmarshal(b, (*bare)(u))
}

// AppLimits are what tasks may use at most; each is a number or "unlimited".
type AppLimits struct {
	CPUs any `json:"cpus,omitempty"`
	Mem  any `json:"mem,omitempty"`
}

// AppVersionInfo says when an app was last scaled and when last changed.
type AppVersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// AppCanary is how many instances of a new version start first.
type AppCanary struct {
	Instances int `json:"instances"`
	// Promote goes on with the rest: "manual" (the default), or a time such as
	// "10m" after which healthy canaries are promoted.
	Promote string `json:"promote,omitempty"`
}

// Kind implements Object.
func (App) Kind() string { return "app" }

// Key is the app's id without its first slash.
func (a App) Key() string {
	if len(a.ID) > 0 && a.ID[0] == '/' {
		return a.ID[1:]
	}
	return a.ID
}
