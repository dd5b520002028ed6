package executor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// retryStop is how long a stop waits that could not be told.
const retryStop = 500 * time.Millisecond

// task is one task of the supervisor.
type task struct {
	s        *Supervisor
	launch   Launch
	executor Executor
	writing  sync.Mutex    // held while the record is written
	changed  chan struct{} // poked when what follows has changed

	mu     sync.Mutex // guards what follows
	record record
	wanted bool
	grace  time.Duration // of the kill
	cancel context.CancelFunc
}

func (s *Supervisor) newTask(r record) *task {
	id := r.Spec.ID
	t := &task{s: s, record: r, wanted: true, changed: make(chan struct{}, 1), executor: s.options.Executors[r.Spec.Runtime], grace: r.Spec.Grace.Std()}
	t.launch = Launch{Spec: r.Spec, Dir: s.taskDir(id), Sandbox: s.sandbox(id)}
	if wantsNetns(r.Spec) {
		t.launch.Netns, t.launch.Host = s.netnsPath(id), hostName(id)
		t.launch.Files = map[string]string{
			"/etc/resolv.conf": filepath.Join(t.launch.Dir, "resolv.conf"), "/etc/hosts": filepath.Join(t.launch.Dir, "hosts"),
		}
	}
	t.launch.Env = s.environment(t.launch)
	return t
}

func (t *task) poke() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// want tells whether the snapshot has the task.
func (t *task) want(wanted bool) {
	t.mu.Lock()
	changed := t.wanted != wanted
	t.wanted = wanted
	t.mu.Unlock()
	if changed {
		t.poke()
	}
}

// kill has the task ended; a negative grace is the spec's. It tells whether that
// is news. A reason makes it a failure.
func (t *task) kill(reason string, grace time.Duration) bool {
	if grace < 0 {
		grace = t.launch.Spec.Grace.Std()
	}
	t.mu.Lock()
	news := !t.record.Status.State.Ended() && (!t.record.Killing || grace < t.grace)
	if news {
		if !t.record.Killing {
			t.record.Kill = reason
		}
		t.record.Killing, t.grace = true, grace
	}
	cancel := t.cancel
	t.mu.Unlock()
	if news {
		if cancel != nil {
			cancel()
		}
		t.poke()
	}
	return news
}

func (t *task) killing() (bool, string, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.record.Killing, t.record.Kill, t.grace
}

// live is the task's life: from its record to the day when nobody wants it.
// When ctx ends before, the next agent goes on from the record.
func (t *task) live(ctx context.Context) {
	if !t.state().Ended() {
		exit, err := t.run(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			exit.Reason, exit.Unstarted = err.Error(), true
		}
		t.end(ctx, exit)
	}
	for {
		t.mu.Lock()
		wanted := t.wanted
		t.mu.Unlock()
		if !wanted {
			t.s.forget(t)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		}
	}
}

func (t *task) state() api.TaskState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.record.Status.State
}

// run stages and starts the task, unless that was done, and returns how it ended.
func (t *task) run(ctx context.Context) (Exit, error) {
	if t.executor == nil {
		return Exit{}, fmt.Errorf("this node cannot run tasks of runtime %q", t.launch.Spec.Runtime)
	}
	if err := checkID(t.launch.Spec.ID); err != nil {
		return Exit{}, err
	}
	if t.launch.Spec.GPUs > 0 {
		return Exit{}, errors.New("gpus: this node gives none to tasks")
	}
	if !t.executor.Begun(t.launch) {
		staging, cancel := context.WithCancel(ctx)
		defer cancel()
		t.mu.Lock()
		t.cancel = cancel
		t.mu.Unlock()
		err := t.stage(staging)
		if killed, _, _ := t.killing(); killed && !t.executor.Begun(t.launch) {
			return Exit{Unstarted: true, Stopped: true}, nil
		}
		if err != nil {
			return Exit{}, err
		}
	}
	living, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { t.stopWhenTold(living) })
	var once sync.Once
	return t.executor.Wait(ctx, t.launch, func(pid int, since time.Time) {
		t.attachLate(ctx, pid)
		t.update(func(s *api.TaskStatus) {
			s.PID, s.Started = pid, since
			if s.State != api.TaskKilling {
				s.State = api.TaskRunning
			}
		})
		once.Do(func() { t.observe(living, &beside) })
	})
}

// stage makes all that the task needs, and starts it. Every step may be done again.
func (t *task) stage(ctx context.Context) error {
	if killed, _, _ := t.killing(); killed {
		return context.Canceled
	}
	if err := t.keep(); err != nil {
		return err
	}
	t.s.options.OnChange(t.now())
	if err := t.makeSandbox(ctx); err != nil {
		return err
	}
	if err := t.executor.Prepare(ctx, t.launch); err != nil {
		return err
	}
	if err := t.attach(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t.update(func(s *api.TaskStatus) { s.State = api.TaskStarting })
	return t.executor.Start(ctx, t.launch)
}

// stopWhenTold passes a kill on until ctx ends.
func (t *task) stopWhenTold(ctx context.Context) {
	var told time.Duration = -1
	for {
		killing, reason, grace := t.killing()
		var retry <-chan time.Time
		if killing && (told < 0 || grace < told) {
			t.update(func(s *api.TaskStatus) {
				if !s.State.Ended() {
					s.State = api.TaskKilling
				}
			})
			if err := t.executor.Stop(ctx, t.launch, grace, reason); err == nil {
				told = grace
			} else {
				retry = time.After(retryStop)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.changed:
		case <-retry:
		}
	}
}

// end takes away what the task had and tells how it ended.
func (t *task) end(ctx context.Context, exit Exit) {
	log := t.s.log.With("task", t.launch.Spec.ID)
	if t.launch.Netns != "" {
		if t.s.options.Networks != nil {
			if err := t.s.options.Networks.Detach(ctx, t.launch.Spec.ID); err != nil {
				log.Warn("task not detached from its networks", "error", err)
			}
		}
		if err := removeNetns(t.launch.Netns); err != nil {
			log.Warn("network namespace of a task not removed", "error", err)
		}
	}
	if t.executor != nil {
		if err := t.executor.Remove(ctx, t.launch); err != nil {
			log.Warn("what an ended task had is not removed", "error", err)
		}
	}
	killed, reason, _ := t.killing()
	t.update(func(s *api.TaskStatus) { finish(s, exit, killed && reason == "") })
}
