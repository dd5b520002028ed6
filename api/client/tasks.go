package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/weirproject/weir/api"
)

// PathTasks answers GET with []api.TaskStatus; below it, by id, an
// api.LocalTask. Below that, kill takes a POST (?grace=), logs answers GET with
// text (?stream=&follow=&offset=), and exec takes a POST (?arg=&tty=) that is
// upgraded to ExecProtocol.
const PathTasks = "/v1/tasks"

// ExecProtocol is what a request for exec is upgraded to: Frames both ways.
const ExecProtocol = "weir-exec"

// Tasks lists the tasks of the node.
func (c *Client) Tasks(ctx context.Context) ([]api.TaskStatus, error) {
	return get[[]api.TaskStatus](ctx, c, nil, PathTasks)
}

// Task shows one task. The error is a *Problem with the status 404 when there is
// none.
func (c *Client) Task(ctx context.Context, id string) (api.LocalTask, error) {
	return get[api.LocalTask](ctx, c, nil, PathTasks, id)
}

// KillTask ends a task with its grace, or with another when that is not negative.
func (c *Client) KillTask(ctx context.Context, id string, grace time.Duration) (api.LocalTask, error) {
	query := url.Values{}
	if grace >= 0 {
		query.Set("grace", grace.String())
	}
	return call[api.LocalTask](ctx, c, http.MethodPost, query, nil, PathTasks, id, "kill")
}

// LogOptions say which part of a task's log is wanted.
type LogOptions struct {
	Stream string // stdout or stderr; empty means stdout
	// Follow goes on until the task ends.
	Follow bool
	// Offset in the newest file, in bytes; a negative one counts from its end.
	Offset int64
}

// TaskLogs reads a task's log; the caller closes it.
func (c *Client) TaskLogs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	query := url.Values{"stream": {o.Stream}, "follow": {strconv.FormatBool(o.Follow)}, "offset": {strconv.FormatInt(o.Offset, 10)}}
	response, err := c.stream(ctx, http.MethodGet, query, nil, PathTasks, id, "logs")
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, problemOf(response)
	}
	return response.Body, nil
}

// stream sends a request whose answer may take as long as it likes.
func (c *Client) stream(ctx context.Context, method string, query url.Values, header http.Header, path string, below ...string) (*http.Response, error) {
	for _, label := range below {
		path += "/" + url.PathEscape(label)
	}
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	patient := *c.http
	patient.Timeout = 0
	response, err := patient.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	return response, nil
}

// Exec is a command to be run inside a task.
type Exec struct {
	Args []string
	// TTY gives it a terminal; then all its output comes on Stdout.
	TTY bool
	// Stdin may be nil for none.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Sizes of the terminal, as they change; nil: never.
	Sizes <-chan WindowSize
}

// WindowSize of a terminal, in characters.
type WindowSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// ExecTask runs a command inside a task and returns its exit code, 128 and more
// for a signal. When ctx ends it is killed.
func (c *Client) ExecTask(ctx context.Context, id string, e Exec) (int, error) {
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {ExecProtocol}}
	query := url.Values{"arg": e.Args, "tty": {strconv.FormatBool(e.TTY)}}
	response, err := c.stream(ctx, http.MethodPost, query, header, PathTasks, id, "exec")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		return 0, problemOf(response)
	}
	conn, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return 0, errors.New("run the command: the connection cannot be written to")
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	out := NewFrameWriter(conn)
	go send(out, e)
	for {
		kind, data, err := ReadFrame(conn)
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, fmt.Errorf("run the command: the agent hung up: %w", err)
		}
		switch kind {
		case FrameStdout:
			_, err = e.Stdout.Write(data)
		case FrameStderr:
			_, err = e.Stderr.Write(data)
		case FrameExit:
			var end ExecEnd
			if err := json.Unmarshal(data, &end); err != nil {
				return 0, err
			}
			if end.Error != "" {
				return 0, errors.New(end.Error)
			}
			return end.Code, nil
		}
		if err != nil {
			return 0, fmt.Errorf("write the output: %w", err)
		}
	}
}

// send sends input and sizes until the connection is closed.
func send(out *FrameWriter, e Exec) {
	if e.Sizes != nil {
		go func() {
			for size := range e.Sizes {
				data, _ := json.Marshal(size) // two numbers
				_ = out.Write(FrameResize, data)
			}
		}()
	}
	buffer := make([]byte, 32<<10)
	for e.Stdin != nil {
		n, err := e.Stdin.Read(buffer)
		if n > 0 && out.Write(FrameStdin, buffer[:n]) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	_ = out.Write(FrameStdin, nil)
}

// ExecEnd is the content of the last frame.
type ExecEnd struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"` // why it could not be run
}
