package api

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// appSegment is what one part of a segment of an app's id may be (Marathon's
// PathId); a segment has one or more, with dots between them.
var appSegment = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// CheckAppID tells what is wrong with an absolute id of an app or group; nil
// when nothing is.
func CheckAppID(id string) error {
	if id == "/" || id == "" {
		return fmt.Errorf("must be a path such as /shop/web")
	}
	segments := strings.Split(strings.TrimPrefix(id, "/"), "/")
	for _, s := range segments {
		if !appSegment.MatchString(s) || len(s) > 63 {
			return fmt.Errorf("%q must have only a-z, 0-9, and hyphens and dots within, at most 63 characters", s)
		}
	}
	if last := segments[len(segments)-1]; slices.Contains([]string{"restart", "tasks", "versions"}, last) {
		return fmt.Errorf("must not end in %q, which the API uses itself", last)
	}
	return nil
}

// Validate implements Object. It expects a completed app. What Weir does not do
// is refused by name. Labels that ask for virtual IPs are VIPs' to judge: a wrong
// one costs the app that VIP only.
func (a App) Validate() error {
	var f faults
	if err := CheckAppID(a.ID); err != nil {
		f.add("id", "%v", err)
	}
	a.validateCommand(&f)
	a.validateAmounts(&f)
	a.validateNetworks(&f)
	a.validatePorts(&f)
	a.validateContainer(&f)
	a.validateEnv(&f)
	for i, c := range a.HealthChecks {
		a.validateCheck(&f, fmt.Sprintf("healthChecks[%d]", i), c)
	}
	a.validateReadiness(&f)
	for i, c := range a.Constraints {
		validateConstraint(&f, fmt.Sprintf("constraints[%d]", i), c)
	}
	a.validateUpgrade(&f)
	a.validateFetch(&f)
	for i, d := range a.Dependencies {
		if err := CheckAppID(d); err != nil {
			f.add(fmt.Sprintf("dependencies[%d]", i), "%v", err)
		} else if d == a.ID {
			f.add(fmt.Sprintf("dependencies[%d]", i), "is the app itself")
		}
	}
	return f.err()
}

func (a *App) validateCommand(f *faults) {
	image := a.Container != nil && a.Container.Docker != nil && a.Container.Docker.Image != ""
	switch {
	case a.Cmd != "" && len(a.Args) > 0:
		f.add("args", "must not be given together with cmd")
	case a.Cmd == "" && len(a.Args) == 0 && !image:
		f.add("cmd", "is missing: give cmd, args or a container with an image")
	}
}

func (a *App) validateAmounts(f *faults) {
	for _, n := range []struct {
		field      string
		value, min float64
	}{
		{"cpus", a.CPUs, 0}, {"mem", a.Mem, 0}, {"disk", a.Disk, 0}, {"gpus", float64(a.GPUs), 0},
		{"backoffSeconds", number(a.BackoffSeconds), 0}, {"backoffFactor", or(a.BackoffFactor, 1), 1},
		{"maxLaunchDelaySeconds", number(a.MaxLaunchDelaySeconds), 0},
		{"taskKillGracePeriodSeconds", number(a.TaskKillGracePeriodSeconds), 0},
		{"progressDeadlineSeconds", number(a.ProgressDeadlineSeconds), 0},
	} {
		if !(n.value >= n.min) || math.IsInf(n.value, 0) {
			f.add(n.field, "%v must be at least %v", n.value, n.min)
		}
	}
	if a.Instances < 0 && a.Instances != EveryNode {
		f.add("instances", `%d must be 0 or more, or "*"`, int(a.Instances))
	}
	switch a.KillSelection {
	case "", KillYoungestFirst, KillOldestFirst:
	default:
		f.add("killSelection", "%q must be %s or %s", a.KillSelection, KillYoungestFirst, KillOldestFirst)
	}
	if u := a.UnreachableStrategy; u != nil && !u.Disabled {
		if u.InactiveAfterSeconds < 0 {
			f.add("unreachableStrategy.inactiveAfterSeconds", "must be 0 or more")
		}
		if u.ExpungeAfterSeconds < u.InactiveAfterSeconds {
			f.add("unreachableStrategy.expungeAfterSeconds", "must not be less than inactiveAfterSeconds")
		}
	}
	if a.Instances > 1 && a.Canary != nil && (a.Canary.Instances < 1 || a.Canary.Instances > int(a.Instances)) {
		f.add("canary.instances", "%d must be 1 to instances", a.Canary.Instances)
	}
	if a.Canary != nil && a.BlueGreen {
		f.add("blueGreen", "must not be given together with canary")
	}
	for i, s := range a.Spread {
		if !slices.Contains([]string{"host", "rack", "zone", "region"}, s) {
			f.add(fmt.Sprintf("spread[%d]", i), "%q must be host, rack, zone or region", s)
		}
	}
	if l := a.ResourceLimits; l != nil {
		checkLimit(f, "resourceLimits.cpus", l.CPUs, a.CPUs)
		checkLimit(f, "resourceLimits.mem", l.Mem, a.Mem)
		if l.Mem == "unlimited" {
			f.add("resourceLimits.mem", "unlimited is not supported: a task's memory is bounded by what is reserved for it")
		}
	}
}

func checkLimit(f *faults, field string, value any, least float64) {
	switch v := value.(type) {
	case nil:
	case string:
		if v != "unlimited" {
			f.add(field, `%q must be a number or "unlimited"`, v)
		}
	case float64:
		if v < least {
			f.add(field, "%v must not be less than what the app asks for, %v", v, least)
		}
	default:
		f.add(field, `must be a number or "unlimited"`)
	}
}

func number(p *float64) float64 { return or(p, 0) }

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func (a *App) validateEnv(f *faults) {
	for name, value := range a.Env {
		if !envName.MatchString(name) {
			f.add("env", "%q is no name of a variable", name)
		}
		if _, ok := value.(string); !ok {
			f.add("env."+name, "must be a string: secrets are not supported")
		}
	}
	if len(a.Secrets) > 0 {
		f.add("secrets", "is not supported")
	}
}

func (a *App) validateCheck(f *faults, field string, c AppCheck) {
	switch c.Protocol {
	case "HTTP", "HTTPS", "TCP", "MESOS_HTTP", "MESOS_HTTPS", "MESOS_TCP", "GRPC":
		if c.Command != nil {
			f.add(field+".command", "is for checks of protocol COMMAND")
		}
		switch {
		case c.PortIndex != nil && c.Port != nil:
			f.add(field+".port", "must not be given together with portIndex")
		case c.PortIndex != nil && (*c.PortIndex < 0 || *c.PortIndex >= len(a.ports())):
			f.add(field+".portIndex", "%d: the app has %d ports", *c.PortIndex, len(a.ports()))
		case c.PortIndex == nil && c.Port == nil:
			f.add(field+".port", "is missing: the app has no ports, so say which one to ask")
		case c.Port != nil && (*c.Port < 1 || *c.Port > 65535):
			f.add(field+".port", "%d must be 1 to 65535", *c.Port)
		}
	case "COMMAND":
		if c.Command == nil || c.Command.Value == "" {
			f.add(field+".command.value", "is missing")
		}
	default:
		f.add(field+".protocol", "%q must be HTTP, HTTPS, TCP, COMMAND, MESOS_HTTP, MESOS_HTTPS, MESOS_TCP or GRPC", c.Protocol)
	}
	if c.IPProtocol != "" && c.IPProtocol != "IPv4" && c.IPProtocol != "IPv6" {
		f.add(field+".ipProtocol", "%q must be IPv4 or IPv6", c.IPProtocol)
	}
	for name, v := range map[string]*float64{"gracePeriodSeconds": c.GracePeriodSeconds, "delaySeconds": c.DelaySeconds} {
		if number(v) < 0 {
			f.add(field+"."+name, "must be 0 or more")
		}
	}
	if or(c.IntervalSeconds, 1) <= 0 {
		f.add(field+".intervalSeconds", "must be more than 0")
	}
	if or(c.TimeoutSeconds, 1) <= 0 {
		f.add(field+".timeoutSeconds", "must be more than 0")
	}
	if or(c.MaxConsecutiveFailures, 0) < 0 {
		f.add(field+".maxConsecutiveFailures", "must be 0 or more")
	}
}

func (a *App) validateReadiness(f *faults) {
	if len(a.ReadinessChecks) > 1 {
		f.add("readinessChecks", "must be one at most")
	}
	for i, r := range a.ReadinessChecks {
		field := fmt.Sprintf("readinessChecks[%d]", i)
		if r.Protocol != "HTTP" && r.Protocol != "HTTPS" {
			f.add(field+".protocol", "%q must be HTTP or HTTPS", r.Protocol)
		}
		if !slices.Contains(a.ports(), r.PortName) {
			f.add(field+".portName", "%q is no port of the app", r.PortName)
		}
		if or(r.TimeoutSeconds, 0) >= or(r.IntervalSeconds, 1) {
			f.add(field+".timeoutSeconds", "must be less than intervalSeconds")
		}
	}
}

// validateConstraint checks [field, operator, value].
func validateConstraint(f *faults, field string, c []string) {
	if len(c) < 2 || len(c) > 3 {
		f.add(field, "must be [field, operator] or [field, operator, value]")
		return
	}
	if c[0] == "" {
		f.add(field+"[0]", "is empty: name a field such as @hostname, @zone or an attribute")
	}
	value := ""
	if len(c) == 3 {
		value = c[2]
	}
	switch c[1] {
	case "UNIQUE":
		if value != "" {
			f.add(field+"[2]", "UNIQUE takes no value")
		}
	case "CLUSTER":
	case "GROUP_BY":
		if value != "" && !isCount(value) {
			f.add(field+"[2]", "%q must be a whole number above 0", value)
		}
	case "MAX_PER":
		if !isCount(value) {
			f.add(field+"[2]", "%q must be a whole number above 0", value)
		}
	case "LIKE", "UNLIKE":
		if _, err := regexp.Compile(value); err != nil || value == "" {
			f.add(field+"[2]", "%q must be a regular expression", value)
		}
	case "IS":
		if value == "" {
			f.add(field+"[2]", "is missing: IS needs a value")
		}
	default:
		f.add(field+"[1]", "%q must be UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER or IS", c[1])
	}
}

func isCount(text string) bool {
	var n uint32
	return json.Unmarshal([]byte(text), &n) == nil && n > 0
}

func (a *App) validateUpgrade(f *faults) {
	if u := a.UpgradeStrategy; u != nil {
		for name, v := range map[string]*float64{"minimumHealthCapacity": u.MinimumHealthCapacity, "maximumOverCapacity": u.MaximumOverCapacity} {
			if n := or(v, 1); !(n >= 0 && n <= 1) {
				f.add("upgradeStrategy."+name, "%v must be 0 to 1", n)
			}
		}
	}
}

func (a *App) validateFetch(f *faults) {
	for i, file := range a.Fetch {
		field := fmt.Sprintf("fetch[%d]", i)
		scheme, _, found := strings.Cut(file.URI, ":")
		if !found && !strings.HasPrefix(file.URI, "/") || found && !slices.Contains([]string{"http", "https", "file"}, scheme) {
			f.add(field+".uri", "%q must be http://, https://, file:// or a path on the node", file.URI)
		}
		if file.SHA256 != "" && !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(file.SHA256) {
			f.add(field+".sha256", "must be 64 hex digits")
		}
		for _, path := range []string{file.DestPath, file.OutputFile} {
			if strings.HasPrefix(path, "/") || slices.Contains(strings.Split(path, "/"), "..") {
				f.add(field+".destPath", "%q must stay below the sandbox", path)
			}
		}
	}
}
