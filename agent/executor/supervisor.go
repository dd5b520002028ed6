package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/weirproject/weir/api"
)

// ErrNotFound tells that this node knows nothing of a task.
var ErrNotFound = errors.New("there is no such task on this node")

// Options of a Supervisor.
type Options struct {
	Log *slog.Logger // nil: no log
	// DataDir holds the tasks' records, sandboxes and fetched files; it outlives
	// a boot. RunDir holds network namespaces.
	DataDir, RunDir string
	// Executors by runtime; a task of another runtime fails.
	Executors map[api.Runtime]Executor
	// Networks attaches tasks to networks; nil: a task that wants one fails.
	Networks Networks
	// Host is the node's address or name, as tasks know it ($HOST).
	Host func() string
	// ResolvConf is the resolv.conf of tasks with a namespace of their own; nil,
	// or when it returns nil: as the node's.
	ResolvConf func() []byte
	// OnChange is told whenever a task's status differs, from several
	// goroutines; it must not block. nil: nobody is told.
	OnChange func(api.TaskStatus)
	// Keep is how long the sandbox of an ended task is kept; 0 means a day. The
	// oldest go sooner when the disk has less than a tenth free.
	Keep time.Duration
	// DiskEvery is how often sandboxes are measured; 0 means 2 s.
	DiskEvery time.Duration
}

// Supervisor runs the tasks of a node. Any number of goroutines may use it.
type Supervisor struct {
	options Options
	log     *slog.Logger
	running sync.WaitGroup // the tasks' goroutines

	mu    sync.Mutex // guards what follows
	ctx   context.Context
	tasks map[string]*task
}

// New makes a Supervisor with the tasks that are on disk. Nothing is started or
// ended before Run.
func New(o Options) (*Supervisor, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func(api.TaskStatus) {}
	}
	if o.Host == nil {
		o.Host = func() string { name, _ := os.Hostname(); return name }
	}
	o.Keep = cmp.Or(o.Keep, 24*time.Hour)
	o.DiskEvery = cmp.Or(o.DiskEvery, 2*time.Second)
	var err error
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return nil, err
	}
	if o.RunDir, err = filepath.Abs(o.RunDir); err != nil {
		return nil, err
	}
	s := &Supervisor{options: o, log: o.Log.With("component", "tasks"), tasks: map[string]*task{}}
	if err := os.MkdirAll(o.DataDir, 0o755); err != nil { // tasks' users go through it
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("load the tasks: %w", err)
	}
	return s, nil
}

// Run looks after the tasks until ctx ends; they go on then.
func (s *Supervisor) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for _, t := range s.tasks {
		s.begin(t)
	}
	s.mu.Unlock()
	s.collect(ctx)
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// begin starts the task's goroutine; s.mu is held.
func (s *Supervisor) begin(t *task) {
	if s.ctx == nil {
		return // Run does it
	}
	ctx := s.ctx
	s.running.Go(func() { t.live(ctx) })
}

// Set makes these the tasks of the node: new ones are begun, those that shall be
// killed or are not there any more are ended with their grace, and what has
// ended and is not there any more is forgotten. It does not wait, and returns how
// many were begun and how many told to end.
func (s *Supervisor) Set(specs []api.TaskSpec) (begun, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := make(map[string]bool, len(specs))
	for _, spec := range specs {
		wanted[spec.ID] = true
		t := s.tasks[spec.ID]
		if t == nil {
			t = s.newTask(record{Spec: spec, Status: api.TaskStatus{ID: spec.ID, App: spec.App, State: api.TaskStaging, Since: time.Now()}})
			s.tasks[spec.ID] = t
			s.begin(t)
			begun++
		}
		if t.want(true); spec.Kill && t.kill("", -1) {
			ended++
		}
	}
	for id, t := range s.tasks {
		if wanted[id] {
			continue
		}
		if t.want(false); t.kill("", -1) {
			ended++
		}
	}
	return begun, ended
}

// forget takes a task out that has ended and that nobody wants.
func (s *Supervisor) forget(t *task) {
	if err := os.RemoveAll(t.launch.Dir); err != nil {
		s.log.Warn("folder of an ended task not removed", "task", t.launch.Spec.ID, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, t.launch.Spec.ID)
}

// Kill ends a task with its grace, or with another when grace is not negative.
// The error is ErrNotFound or ErrEnded.
func (s *Supervisor) Kill(id string, grace time.Duration) error {
	t, err := s.find(id)
	if err != nil {
		return err
	}
	if !t.kill("", grace) {
		return ErrEnded
	}
	return nil
}

func (s *Supervisor) find(id string) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tasks[id]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// Statuses of all tasks, sorted by id, with what they use now.
func (s *Supervisor) Statuses() []api.TaskStatus {
	s.mu.Lock()
	all := make([]*task, 0, len(s.tasks))
	for _, t := range s.tasks {
		all = append(all, t)
	}
	s.mu.Unlock()
	statuses := make([]api.TaskStatus, 0, len(all))
	for _, t := range all {
		statuses = append(statuses, t.now())
	}
	slices.SortFunc(statuses, func(a, b api.TaskStatus) int { return cmp.Compare(a.ID, b.ID) })
	return statuses
}

// Status of one task. The error is ErrNotFound.
func (s *Supervisor) Status(id string) (api.TaskStatus, error) {
	t, err := s.find(id)
	if err != nil {
		return api.TaskStatus{}, err
	}
	return t.now(), nil
}

// Spec of one task. The error is ErrNotFound.
func (s *Supervisor) Spec(id string) (api.TaskSpec, error) {
	t, err := s.find(id)
	if err != nil {
		return api.TaskSpec{}, err
	}
	return t.launch.Spec, nil
}
