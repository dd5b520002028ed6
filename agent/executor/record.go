package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirproject/weir/agent/executor/shim"
	"github.com/weirproject/weir/api"
)

// record is what is kept of a task, from before its start until the snapshot
// has it no more.
type record struct {
	Spec   api.TaskSpec   `json:"spec"`
	Status api.TaskStatus `json:"status"`
	// Kill is why it is being ended; Killing tells that it is.
	Killing bool   `json:"killing,omitempty"`
	Kill    string `json:"kill,omitempty"`
}

const recordFile = "task.json"

func (s *Supervisor) tasksDir() string         { return filepath.Join(s.options.DataDir, "tasks") }
func (s *Supervisor) taskDir(id string) string { return filepath.Join(s.tasksDir(), id) }
func (s *Supervisor) sandbox(id string) string {
	return filepath.Join(s.options.DataDir, "sandbox", id)
}
func (s *Supervisor) netnsPath(id string) string { return filepath.Join(s.options.RunDir, "netns", id) }

// checkID keeps ids from being paths to elsewhere.
func checkID(id string) error {
	if id == "" || len(id) > 200 || strings.HasPrefix(id, ".") || strings.ContainsAny(id, "/\x00\n") {
		return fmt.Errorf("task id %q cannot name a folder", id)
	}
	return nil
}

// load reads the records that are on disk. A folder without one is of a task
// that was never begun.
func (s *Supervisor) load() error {
	entries, err := os.ReadDir(s.tasksDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		var r record
		path := filepath.Join(s.tasksDir(), e.Name(), recordFile)
		switch err := shim.ReadFile(path, &r); {
		case errors.Is(err, os.ErrNotExist):
			_ = os.RemoveAll(filepath.Join(s.tasksDir(), e.Name()))
		case err != nil:
			s.log.Error("record of a task cannot be read; the task is left alone", "task", e.Name(), "error", err)
		default:
			s.tasks[r.Spec.ID] = s.newTask(r)
		}
	}
	return nil
}

// keep writes the record down; t.mu is not held.
func (t *task) keep() error {
	t.writing.Lock() // before the copy, so that the last one written is the newest
	defer t.writing.Unlock()
	t.mu.Lock()
	r := t.record
	t.mu.Unlock()
	if err := os.MkdirAll(t.launch.Dir, 0o700); err != nil {
		return err
	}
	return shim.WriteFile(filepath.Join(t.launch.Dir, recordFile), r)
}
