package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

const (
	// heartbeat is how often a controller hears of the node.
	heartbeat = 200 * time.Millisecond
	// statusEvery is how often the whole status is compared with what was told.
	statusEvery = time.Second
	// lastWords is how long the end of the reports may take.
	lastWords = 300 * time.Millisecond
	// maxResults wait to be told; beyond them the oldest are lost.
	maxResults = 256
)

// tell puts a report down to be sent on the stream of now; without one it is of
// no use any more.
func (j *joined) tell(r api.Report) {
	j.mu.Lock()
	if j.connected != "" {
		j.results = append(j.results[max(len(j.results)-maxResults+1, 0):], r)
	}
	j.mu.Unlock()
	j.wakeReport()
}

// tellPeer puts down that this node sees another otherwise than before.
func (j *joined) tellPeer(node string, h api.NodeHealth) {
	j.mu.Lock()
	j.peers[node] = h
	j.mu.Unlock()
	j.wakeReport()
}

func (j *joined) wakeReport() {
	select {
	case j.reports <- struct{}{}:
	default:
	}
}

// report sends what is new, and heartbeats, until ctx ends or the controller
// ends it.
func (j *joined) report(ctx context.Context, controller string) error {
	reader, writer := io.Pipe()
	// The last words are sent when ctx has ended.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWords, cancel) })()
	request, err := http.NewRequestWithContext(sending, http.MethodPost, controller+client.PathReport, reader)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	sent := make(chan error, 1)
	go func() {
		sent <- j.send(ctx, controller, json.NewEncoder(writer))
		writer.Close()
	}()
	// The headers of the answer come at the end, which may be days away.
	response, err := j.client().Do(request)
	reader.CloseWithError(io.ErrClosedPipe)
	if sending := <-sent; err == nil && !errors.Is(sending, io.ErrClosedPipe) {
		err = sending
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("send reports: %w", withoutURL(err))
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("send reports: %w", refusal(response))
	}
	return errors.New("send reports: the controller ended it")
}

// send writes reports until ctx ends.
func (j *joined) send(ctx context.Context, controller string, out *json.Encoder) error {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	var told api.Status
	var compared time.Time
	first := true
	for sequence := uint64(1); ; sequence++ {
		r := api.Report{Sequence: sequence, Time: time.Now(), Applied: j.agent.appliedRevision.Load()}
		if s := j.agent.snapshot.Load(); s != nil {
			r.Wanted = s.Revision
		}
		if first || time.Since(compared) >= statusEvery {
			compared = time.Now()
			if s := j.agent.reportedStatus(controller); first || !sameStatus(s, told) {
				told, r.Status = s, &s
			}
		}
		more := j.fill(&r, first)
		first = false
		if err := out.Encode(r); err != nil {
			return err
		}
		for _, m := range more {
			sequence++
			m.Sequence, m.Time = sequence, r.Time
			if err := out.Encode(m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			_ = out.Encode(api.Report{Sequence: sequence + 1, Time: time.Now(), Leaving: true})
			return nil
		case <-ticker.C:
		case <-j.reports:
		}
	}
}

// fill enters what is to be told of peers, all of them at first, and returns the
// reports of their own.
func (j *joined) fill(r *api.Report, all bool) []api.Report {
	known := map[string]api.NodeHealth{}
	if all {
		r.Tasks, r.All = j.agent.tasks.supervisor.Statuses(), true
	}
	if all && j.agent.peers != nil {
		known = j.agent.peers.All()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.Copy(known, j.peers)
	clear(j.peers)
	if len(known) > 0 {
		r.Peers = known
	}
	more := j.results
	j.results = nil
	return more
}

// sameStatus leaves out what changes by itself.
func sameStatus(a, b api.Status) bool {
	a.Revision, a.Wanted, b.Revision, b.Wanted = 0, 0, 0, 0
	strip := func(all []api.ComponentStatus) []api.ComponentStatus {
		stripped := make([]api.ComponentStatus, len(all))
		for i, c := range all {
			c.Revision, c.Applied = 0, time.Time{}
			stripped[i] = c
		}
		return stripped
	}
	a.Components, b.Components = strip(a.Components), strip(b.Components)
	return reflect.DeepEqual(a, b)
}
