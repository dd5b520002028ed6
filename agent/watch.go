package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quietTime is how long a folder must be still after a write before it is
	// read, so that a file in the middle of being written is rarely seen.
	quietTime = 30 * time.Millisecond
	// longestWait bounds the wait when writes never stop. Together with the
	// apply it stays below the 200 ms within which a change must be in force.
	longestWait = 100 * time.Millisecond
	// rescanInterval finds changes without an event: a folder that appeared
	// later, a mount put over it, an overflowing event queue.
	rescanInterval = 2 * time.Second
)

// watchFolders calls changed once at first and then after every change below
// the folders, until ctx ends.
func watchFolders(ctx context.Context, log *slog.Logger, folders []string, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the state folders: %w", err)
	}
	defer watcher.Close()
	rescan := time.NewTicker(rescanInterval)
	defer rescan.Stop()
	quiet := time.NewTimer(0)
	defer quiet.Stop()
	var since time.Time
	for {
		watchExisting(watcher, folders)
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) < longestWait {
				quiet.Reset(quietTime)
			}
		case err := <-watcher.Errors:
			log.Warn("watching the state folders missed events", "error", err)
			quiet.Reset(quietTime)
		case <-quiet.C:
			since = time.Time{}
			changed()
		case <-rescan.C:
			changed()
		}
	}
}

// watchExisting adds the folders that are there; adding one again is free.
func watchExisting(watcher *fsnotify.Watcher, folders []string) {
	for _, folder := range folders {
		// One that is missing is found by a later rescan.
		_ = watcher.Add(folder)
	}
}
