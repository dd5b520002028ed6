package executor

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// update changes the status, and writes it down and tells of it when it differs.
func (t *task) update(change func(*api.TaskStatus)) {
	t.mu.Lock()
	before := t.record.Status
	t.record.Status.Checks = slices.Clone(before.Checks) // those who were told have the old one
	change(&t.record.Status)
	if t.record.Status.State != before.State {
		t.record.Status.Since = time.Now()
	}
	now := t.record.Status
	t.mu.Unlock()
	if now.State != before.State || now.Healthy != before.Healthy || now.Ready != before.Ready {
		if err := t.keep(); err != nil {
			t.s.log.Error("record of a task not written", "task", now.ID, "error", err)
		}
	}
	if now.State != before.State {
		t.s.log.Info("task changed its state", "task", now.ID, "state", now.State, "reason", now.Reason)
	}
	if !same(before, now) {
		t.s.options.OnChange(now)
	}
}

// same leaves out when checks were made, which changes by itself.
func same(a, b api.TaskStatus) bool {
	bare := func(s api.TaskStatus) api.TaskStatus {
		s.Checks = slices.Clone(s.Checks)
		for i := range s.Checks {
			s.Checks[i].Last = time.Time{}
		}
		return s
	}
	return reflect.DeepEqual(bare(a), bare(b))
}

// now is the status with what the task uses.
func (t *task) now() api.TaskStatus {
	t.mu.Lock()
	status := t.record.Status
	t.mu.Unlock()
	if status.State == api.TaskRunning || status.State == api.TaskKilling {
		u := t.executor.Usage(t.launch)
		status.CPUSeconds, status.Memory = u.CPUSeconds, u.Memory
	}
	return status
}

// finish fills the status of an ended task in. One that was told to end was
// killed, however it ended, unless it was told so for a fault of its own.
func finish(s *api.TaskStatus, exit Exit, killed bool) {
	s.ExitCode, s.Signal, s.Reason, s.PID, s.Memory = exit.Code, exit.Signal, exit.Reason, 0, 0
	s.CPUSeconds = exit.CPU
	if !exit.Started.IsZero() {
		s.Started = exit.Started
	}
	switch {
	case killed && (exit.Stopped || exit.Unstarted):
		s.State, s.Reason = api.TaskKilled, ""
	case exit.Reason == "" && exit.Code == 0 && exit.Signal == 0 && !exit.Unstarted:
		s.State = api.TaskFinished
	default:
		s.State = api.TaskFailed
		switch {
		case s.Reason != "":
		case exit.Signal != 0:
			s.Reason = "ended by signal " + unix.SignalName(unix.Signal(exit.Signal))
		default:
			s.Reason = fmt.Sprintf("ended with exit code %d", exit.Code)
		}
	}
}
