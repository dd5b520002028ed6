package testenv

import (
	"context"
)

// The states of a host.
const (
	HostUp        = "up"         // no agent belongs here
	HostReady     = "ready"      // the agent has applied its state
	HostNotReady  = "not ready"  // the agent runs and is not ready
	HostAgentDown = "agent down" // the agent does not run
	HostOff       = "off"        // nothing runs
)

// Status of a lab.
type Status struct {
	Name  string       `json:"name"`
	File  string       `json:"file"`
	Dir   string       `json:"dir"`
	Hosts []HostStatus `json:"hosts"`
	Cuts  []Cut        `json:"cuts"`
}

// HostStatus is a host and how it does.
type HostStatus struct {
	Host
	State string `json:"state"`
	// PID of the process that keeps the host's namespaces; 0 when it is off.
	PID int `json:"pid,omitempty"`
	// AgentPID is 0 without a running agent.
	AgentPID int        `json:"agent_pid,omitempty"`
	Cgroup   string     `json:"cgroup"`
	Detached []Detached `json:"detached,omitempty"`
}

// Status looks at every host and asks its agent.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	s := Status{Name: l.name, File: l.Spec.File, Dir: l.dir(), Cuts: []Cut{}}
	for _, h := range l.Spec.Hosts {
		s.Hosts = append(s.Hosts, l.hostStatus(ctx, h))
	}
	cuts, err := l.Cuts()
	s.Cuts = append(s.Cuts, cuts...)
	return s, err
}

func (l *Lab) hostStatus(ctx context.Context, h Host) HostStatus {
	s := HostStatus{Host: h, State: HostUp, Cgroup: l.hostCgroup(h.Name), Detached: l.detached(h.Name)}
	p, err := l.init(h.Name)
	if err != nil {
		s.State = HostOff
		return s
	}
	s.PID = p.pid
	if !h.RunsAgent() {
		return s
	}
	agent, _ := l.agent(h.Name)
	switch {
	case !agent.alive():
		s.State = HostAgentDown
		return s
	case l.ready(ctx, h.Name) != nil:
		s.State = HostNotReady
	default:
		s.State = HostReady
	}
	s.AgentPID = agent.pid
	return s
}
