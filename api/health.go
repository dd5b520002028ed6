package api

import "time"

// HealthCheck is an active check of every backend of a service. Exactly one of
// HTTP, HTTPS, GRPC, TCP and Exec is set.
type HealthCheck struct {
	HTTP  *HTTPCheck  `json:"http,omitempty"`
	HTTPS *HTTPSCheck `json:"https,omitempty"`
	GRPC  *GRPCCheck  `json:"grpc,omitempty"`
	TCP   *TCPCheck   `json:"tcp,omitempty"`
	Exec  *ExecCheck  `json:"exec,omitempty"`
	// Interval between two checks; 2 s when zero, at least 50 ms.
	Interval Duration `json:"interval,omitzero"`
	// Timeout of one check; 1 s when zero.
	Timeout Duration `json:"timeout,omitzero"`
	// Failures in a row before a healthy backend counts as down; 3 when zero.
	Failures int `json:"failures,omitempty"`
	// Successes in a row before a backend that is down counts as healthy; 1 when
	// zero.
	Successes int `json:"successes,omitempty"`
}

// HTTPCheck passes when a GET answers with a status of 200 to 399.
type HTTPCheck struct {
	Path string `json:"path,omitempty"` // "/" when empty
	Port uint16 `json:"port,omitempty"` // the backend's own when zero
	Host string `json:"host,omitempty"` // Host header; the address when empty
}

// HTTPSCheck passes as an HTTPCheck does, over TLS.
type HTTPSCheck struct {
	HTTPCheck
	// Verify asks for a certificate that the system trusts for Host; without it
	// any certificate will do, since a check asks for life and not for identity.
	Verify bool `json:"verify,omitempty"`
}

// GRPCCheck passes when grpc.health.v1.Health/Check answers SERVING.
type GRPCCheck struct {
	Service string `json:"service,omitempty"` // as the server names it; the whole server when empty
	Port    uint16 `json:"port,omitempty"`    // the backend's own when zero
	TLS     bool   `json:"tls,omitempty"`     // over TLS, with any certificate
}

// TCPCheck passes when a connection opens.
type TCPCheck struct {
	Port uint16 `json:"port,omitempty"` // the backend's own when zero
	// Tunnel has edge nodes send the check as they send clients' packets, through
	// the tunnel to the backend's node, and wait for the answer under the virtual
	// address. Other nodes check directly.
	Tunnel bool `json:"tunnel,omitempty"`
}

// ExecCheck passes when the command exits with 0. It runs on the checking
// node, with WEIR_BACKEND_ADDRESS and WEIR_BACKEND_PORT in its environment.
type ExecCheck struct {
	Command []string `json:"command"`
}

// Defaults of a health check.
const (
	DefaultHealthInterval = 2 * time.Second
	DefaultHealthTimeout  = time.Second
	DefaultHealthFailures = 3

	DefaultHealthSuccesses = 1
	MinHealthInterval      = 50 * time.Millisecond
)

// WithDefaults returns the check with its defaults filled in.
func (h HealthCheck) WithDefaults() HealthCheck {
	if h.Interval == 0 {
		h.Interval = Duration(DefaultHealthInterval)
	}
	if h.Timeout == 0 {
		h.Timeout = Duration(DefaultHealthTimeout)
	}
	if h.Failures == 0 {
		h.Failures = DefaultHealthFailures
	}
	if h.Successes == 0 {
		h.Successes = DefaultHealthSuccesses
	}
	return h
}

func (h HealthCheck) validate(f *faults, field string, protocol Protocol) {
	kinds := 0
	if h.HTTP != nil {
		kinds++
		h.HTTP.validate(f, field+".http")
	}
	if h.HTTPS != nil {
		kinds++
		h.HTTPS.validate(f, field+".https")
	}
	if h.GRPC != nil {
		kinds++
		if protocol == UDP && h.GRPC.Port == 0 {
			f.add(field+".grpc.port", "is missing: a udp service has no tcp port to ask")
		}
	}
	if h.TCP != nil {
		kinds++
		if protocol == UDP && h.TCP.Port == 0 {
			f.add(field+".tcp.port", "is missing: a udp service has no tcp port to try")
		}
	}
	if h.Exec != nil {
		kinds++
		if len(h.Exec.Command) == 0 {
			f.add(field+".exec.command", "is empty")
		}
	}
	if kinds != 1 {
		f.add(field, "needs exactly one of http, https, grpc, tcp and exec, but has %d", kinds)
	}
	if i := h.Interval.Std(); i != 0 && i < MinHealthInterval {
		f.add(field+".interval", "%s is shorter than %s", i, MinHealthInterval)
	}
	if h.Timeout < 0 {
		f.add(field+".timeout", "%s is negative", h.Timeout)
	}
	if h.Failures < 0 {
		f.add(field+".failures", "%d is negative", h.Failures)
	}
	if h.Successes < 0 {
		f.add(field+".successes", "%d is negative", h.Successes)
	}
}

func (h HTTPCheck) validate(f *faults, field string) {
	if h.Path != "" && h.Path[0] != '/' {
		f.add(field+".path", "%q must start with a slash", h.Path)
	}
}
