package metronome

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller/jobs"
)

// spec is a job as people write it.
type spec struct {
	ID           string            `json:"id"`
	Description  string            `json:"description,omitempty"`
	Labels       map[string]string `json:"labels"`
	Dependencies []dependency      `json:"dependencies,omitempty"`
	Run          run               `json:"run"`
	Schedules    []jobs.Schedule   `json:"schedules,omitempty"`
}

type dependency struct {
	ID string `json:"id"`
}

type run struct {
	Cmd            string           `json:"cmd,omitempty"`
	Args           []string         `json:"args,omitempty"`
	CPUs           *float64         `json:"cpus,omitempty"`
	Mem            *float64         `json:"mem,omitempty"`
	Disk           float64          `json:"disk"`
	GPUs           int              `json:"gpus"`
	Docker         *api.AppDocker   `json:"docker,omitempty"`
	UCR            *ucr             `json:"ucr,omitempty"`
	Env            map[string]any   `json:"env,omitempty"`
	Secrets        map[string]any   `json:"secrets,omitempty"`
	Artifacts      []artifact       `json:"artifacts,omitempty"`
	Networks       []api.AppNetwork `json:"networks,omitempty"`
	Volumes        []api.AppVolume  `json:"volumes,omitempty"`
	User           string           `json:"user,omitempty"`
	MaxLaunchDelay *float64         `json:"maxLaunchDelay,omitempty"`
	Placement      *placement       `json:"placement,omitempty"`
	Restart        *jobs.Restart    `json:"restart,omitempty"`
	KillGrace      *float64         `json:"taskKillGracePeriodSeconds,omitempty"`
}

type ucr struct {
	Image struct {
		ID        string `json:"id"`
		Kind      string `json:"kind,omitempty"`
		ForcePull bool   `json:"forcePull,omitempty"`
	} `json:"image"`
	Privileged bool `json:"privileged,omitempty"`
}

type artifact struct {
	URI        string `json:"uri"`
	Extract    *bool  `json:"extract,omitempty"`
	Executable bool   `json:"executable,omitempty"`
	Cache      bool   `json:"cache,omitempty"`
}

type placement struct {
	Constraints []struct {
		Attribute string `json:"attribute"`
		Operator  string `json:"operator"`
		Value     string `json:"value,omitempty"`
	} `json:"constraints"`
}

var jobID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

// job of the spec, complete and valid, or what is wrong with it by path.
func (s *spec) job() (*jobs.Job, error) {
	bad := &refusal{status: http.StatusUnprocessableEntity, Message: "Object is not valid"}
	fault := func(path, reason string) { bad.Details = append(bad.Details, detail{path, []string{reason}}) }
	if !jobID.MatchString(s.ID) || len(s.ID) > 200 {
		fault("/id", fmt.Sprintf("%q must have a-z, 0-9, and hyphens and dots within", s.ID))
	}
	j := &jobs.Job{ID: s.ID, Description: s.Description, Labels: s.Labels, App: s.app(), Schedules: s.Schedules}
	if s.Run.Restart != nil {
		j.Restart = *s.Run.Restart
	}
	switch j.Restart.Policy {
	case "":
		j.Restart.Policy = jobs.Never
	case jobs.Never, jobs.OnFailure:
	default:
		fault("/run/restart/policy", fmt.Sprintf("%q must be NEVER or ON_FAILURE", j.Restart.Policy))
	}
	for i, d := range s.Dependencies {
		if !jobID.MatchString(d.ID) || d.ID == s.ID {
			fault(fmt.Sprintf("/dependencies(%d)/id", i), fmt.Sprintf("%q is no other job", d.ID))
		}
		j.Dependencies = append(j.Dependencies, d.ID)
	}
	if len(j.Dependencies) > 0 && len(j.Schedules) > 0 {
		fault("/schedules", "must not be given together with dependencies")
	}
	for i, schedule := range j.Schedules {
		if err := schedule.Validate(); err != nil {
			fault(fmt.Sprintf("/schedules(%d)", i), err.Error())
		}
	}
	if jobID.MatchString(s.ID) {
		for _, f := range api.FieldErrors(j.App.Validate()) {
			fault("/run/"+strings.NewReplacer(".", "/", "[", "(", "]", ")").Replace(f.Field), f.Reason)
		}
	}
	if len(bad.Details) > 0 {
		return nil, bad
	}
	return j, nil
}

// app is how the job's tasks run.
func (s *spec) app() api.App {
	r, a := &s.Run, api.NewApp()
	a.ID, a.Cmd, a.Args, a.Disk, a.GPUs, a.Env, a.Secrets, a.User = "/"+strings.ReplaceAll(s.ID, ".", "/"), r.Cmd, r.Args, r.Disk, r.GPUs, r.Env, r.Secrets, r.User
	a.Labels, a.Networks, a.MaxLaunchDelaySeconds, a.TaskKillGracePeriodSeconds = s.Labels, r.Networks, r.MaxLaunchDelay, r.KillGrace
	a.PortDefinitions = []api.AppPort{}
	if r.CPUs != nil {
		a.CPUs = *r.CPUs
	}
	if r.Mem != nil {
		a.Mem = *r.Mem
	}
	switch {
	case r.Docker != nil:
		a.Container = &api.AppContainer{Type: api.ContainerDocker, Docker: r.Docker, Volumes: r.Volumes}
	case r.UCR != nil:
		a.Container = &api.AppContainer{Type: api.ContainerMesos, Volumes: r.Volumes, Docker: &api.AppDocker{Image: r.UCR.Image.ID, ForcePullImage: r.UCR.Image.ForcePull, Privileged: r.UCR.Privileged}}
	case len(r.Volumes) > 0:
		a.Container = &api.AppContainer{Type: api.ContainerMesos, Volumes: r.Volumes}
	}
	for _, f := range r.Artifacts {
		a.Fetch = append(a.Fetch, api.AppFetch{URI: f.URI, Extract: f.Extract, Executable: f.Executable, Cache: f.Cache})
	}
	if r.Placement != nil {
		for _, c := range r.Placement.Constraints {
			one := []string{c.Attribute, strings.Replace(c.Operator, "EQ", "IS", 1)}
			if c.Value != "" {
				one = append(one, c.Value)
			}
			a.Constraints = append(a.Constraints, one)
		}
	}
	a.Complete()
	return a
}

// specOf is the job as people see it.
func specOf(j *jobs.Job) spec {
	a := j.App
	s := spec{ID: j.ID, Description: j.Description, Labels: j.Labels, Run: run{
		Cmd: a.Cmd, Args: a.Args, CPUs: &a.CPUs, Mem: &a.Mem, Disk: a.Disk, GPUs: a.GPUs, Env: a.Env, User: a.User, Networks: a.Networks,
		MaxLaunchDelay: a.MaxLaunchDelaySeconds, KillGrace: a.TaskKillGracePeriodSeconds, Restart: &j.Restart,
	}}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	for _, d := range j.Dependencies {
		s.Dependencies = append(s.Dependencies, dependency{d})
	}
	if c := a.Container; c != nil {
		s.Run.Volumes = c.Volumes
		if c.Docker != nil && c.Type == api.ContainerDocker {
			s.Run.Docker = c.Docker
		} else if c.Docker != nil {
			u := &ucr{Privileged: c.Docker.Privileged}
			u.Image.ID, u.Image.Kind, u.Image.ForcePull = c.Docker.Image, "docker", c.Docker.ForcePullImage
			s.Run.UCR = u
		}
	}
	for _, f := range a.Fetch {
		s.Run.Artifacts = append(s.Run.Artifacts, artifact{f.URI, f.Extract, f.Executable, f.Cache})
	}
	if len(a.Constraints) > 0 {
		s.Run.Placement = &placement{}
		for _, c := range a.Constraints {
			one := struct {
				Attribute string `json:"attribute"`
				Operator  string `json:"operator"`
				Value     string `json:"value,omitempty"`
			}{Attribute: c[0], Operator: c[1]}
			if len(c) > 2 {
				one.Value = c[2]
			}
			s.Run.Placement.Constraints = append(s.Run.Placement.Constraints, one)
		}
	}
	return s
}
