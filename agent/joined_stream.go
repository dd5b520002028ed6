package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// silentStream is how long a stream without any frame is taken for alive.
const silentStream = 3 * time.Second

// byeError is a stream's end by the controller's will.
type byeError struct{ api.Bye }

func (b *byeError) Error() string { return "the controller ended it: " + b.Reason }

var (
	errSilent = fmt.Errorf("nothing was heard for %s", silentStream)
	// errOutOfStep is of a change that does not follow: the whole is fetched.
	errOutOfStep = errors.New("the changes do not follow each other")
)

// stream holds one stream and the reports that go the other way, until either
// ends.
func (j *joined) stream(ctx context.Context, controller string) error {
	controller = strings.TrimSuffix(controller, "/")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	query := url.Values{"packed": {"gzip"}}
	if s := j.agent.snapshot.Load(); s != nil && j.epoch != "" {
		query.Set("epoch", j.epoch)
		query.Set("revision", strconv.FormatUint(s.Revision, 10))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, controller+client.PathStream+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	silence := time.AfterFunc(silentStream, func() { cancel(errSilent) })
	defer silence.Stop()
	response, err := j.client().Do(request)
	if err != nil {
		return cmp.Or(silentError(ctx), withoutURL(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refusal(response)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return j.report(ctx, controller) })
	g.Go(func() error {
		<-ctx.Done()
		return response.Body.Close() // wakes the decoder
	})
	g.Go(func() error {
		defer cancel(nil)
		decoder := json.NewDecoder(response.Body)
		for {
			var f api.Frame
			if err := decoder.Decode(&f); err != nil {
				return fmt.Errorf("read the stream: %w", err)
			}
			silence.Reset(silentStream)
			j.agent.vouch()
			if err := j.take(ctx, controller, &f); err != nil {
				return err
			}
		}
	})
	err = g.Wait()
	return cmp.Or(silentError(ctx), err)
}

// silentError tells whether it was silence that ended ctx.
func silentError(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return nil
}

// take does what a frame says.
func (j *joined) take(ctx context.Context, controller string, f *api.Frame) error {
	switch f.Type {
	case api.FrameHello:
		return j.hello(controller, f)
	case api.FrameSnapshot:
		s, err := f.Whole()
		if err != nil {
			return err
		}
		j.epoch = f.Epoch
		j.agent.adopt(s, "controller "+controller)
		j.keeper.put(j.epoch, s, nil)
	case api.FrameChange:
		return j.change(controller, f)
	case api.FrameProbe:
		if f.Probe != nil {
			go j.probe(ctx, *f.Probe)
		}
	case api.FrameCommand:
		if f.Command != nil {
			go j.command(ctx, *f.Command)
		}
	case api.FrameBye:
		bye := api.Bye{Reason: "without a reason"}
		if f.Bye != nil {
			bye = *f.Bye
		}
		return &byeError{bye}
	}
	return nil
}

func (j *joined) hello(controller string, f *api.Frame) error {
	m := j.identity.get()
	if f.ClusterID != "" && f.ClusterID != m.ClusterID {
		return fmt.Errorf("it is of the cluster %s, and this node is of %s", f.ClusterID, m.ClusterID)
	}
	if f.Resumed {
		if s := j.agent.snapshot.Load(); s == nil || f.Epoch != j.epoch {
			j.epoch = "" // so that the next try fetches the whole
			return errOutOfStep
		}
		j.agent.setSource("controller " + controller)
	}
	j.setConnected(controller)
	j.log.Info("stream open", "controller", controller, "resumed", f.Resumed, "revision", f.Revision)
	told := slices.Sorted(slices.Values(f.Controllers))
	if len(told) > 0 && !slices.Equal(told, slices.Sorted(slices.Values(m.Controllers))) {
		if err := j.identity.change(func(m *membership) { m.Controllers = told }); err != nil {
			j.log.Warn("list of controllers not kept", "error", err)
		}
	}
	return nil
}

// change brings the state to the next revision.
func (j *joined) change(controller string, f *api.Frame) error {
	s := j.agent.snapshot.Load()
	if f.Change == nil || s == nil || f.Epoch != "" && f.Epoch != j.epoch {
		j.epoch = ""
		return errOutOfStep
	}
	next, err := s.Apply(f.Change)
	if err != nil {
		j.epoch = ""
		return fmt.Errorf("%w: %w", errOutOfStep, err)
	}
	j.agent.adopt(next, "controller "+controller)
	j.keeper.put(j.epoch, next, f.Change)
	return nil
}

// probe tells the controllers whether this node reaches another.
func (j *joined) probe(ctx context.Context, p api.Probe) {
	result := &api.ProbeResult{ID: p.ID}
	if j.agent.peers == nil {
		result.Error = "this node does not watch others (peers.port is 0)"
	} else {
		began := time.Now()
		result.Reached = j.agent.peers.Reach(ctx, p.Node, min(p.Within.Std(), time.Second))
		result.Took = api.Duration(time.Since(began))
	}
	j.tell(api.Report{Probe: result})
}

// command does what a controller asks for and tells how it went.
func (j *joined) command(ctx context.Context, c api.Command) {
	part := func(r api.CommandResult) { r.ID = c.ID; j.tell(api.Report{Result: &r}) }
	do := j.commands[c.Verb]
	if do == nil {
		part(api.CommandResult{Error: fmt.Sprintf("the agent does not know the command %q", c.Verb), Last: true})
		return
	}
	err := do(ctx, c.Arguments, func(data []byte) { part(api.CommandResult{Data: data}) })
	last := api.CommandResult{Last: true}
	if err != nil {
		last.Error = err.Error()
	}
	part(last)
}
