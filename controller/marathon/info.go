package marathon

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/controller/auth"
)

func (q *request) ping() error {
	q.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := fmt.Fprintln(q.w, "pong")
	return err
}

func (q *request) routeInfo(noun string) error {
	switch noun {
	case "info":
		return q.do("cluster", methods{"GET": q.info})
	case "leader":
		return q.do("controllers", methods{"GET": q.leader, "DELETE": q.abdicate})
	}
	return q.do("cluster", methods{"GET": func() error {
		send(q.w, http.StatusOK, map[string]any{"plugins": []struct{}{}})
		return nil
	}})
}

// marathonVersion is what clients are told that look for what a Marathon can.
const marathonVersion = "1.11.24"

func (q *request) info() error {
	leader := q.o.Leader(q.r.Context())
	send(q.w, http.StatusOK, map[string]any{
		"name": "weir", "version": marathonVersion, "buildref": q.o.Version, "elected": leader != "", "leader": leader, "frameworkId": "marathon",
		"marathon_config": map[string]any{
			"framework_name": "marathon", "ha": true, "features": []string{}, "max_instances_per_offer": nil, "mesos_role": "*",
		},
		"zookeeper_config": map[string]any{}, "event_subscriber": nil, "http_config": map[string]any{},
	})
	return nil
}

func (q *request) leader() error {
	leader := q.o.Leader(q.r.Context())
	if leader == "" {
		return refuse(http.StatusNotFound, "There is no leader")
	}
	send(q.w, http.StatusOK, map[string]string{"leader": leader})
	return nil
}

// abdicate gives the leadership up. Backups have a way of their own.
func (q *request) abdicate() error {
	for _, name := range []string{"backup", "restore"} {
		if q.r.URL.Query().Has(name) {
			return refuse(http.StatusUnprocessableEntity, "%s is not supported: use weir controller backup and weir-controller restore", name)
		}
	}
	if q.o.Abdicate == nil || !q.o.Abdicate() {
		return refuse(http.StatusNotFound, "There is no leader here: ask %s", q.o.Leader(q.r.Context()))
	}
	send(q.w, http.StatusOK, map[string]string{"message": "Leadership abdicated"})
	return nil
}

// routePods tells that there are none; to make one is refused. A client that
// asks whether pods are there at all, by HEAD, is told no.
func (q *request) routePods(id string) error {
	none := func() error {
		if id == "" || id == "::status" {
			send(q.w, http.StatusOK, []struct{}{})
			return nil
		}
		return refuse(http.StatusNotFound, "Pod '/%s' does not exist", id)
	}
	no := func() error {
		return refuse(http.StatusNotImplemented, "pods are not supported: define apps, several tasks of which meet by their VIPs")
	}
	return q.do("pods", methods{"HEAD": no, "GET": none, "POST": no, "PUT": no, "DELETE": none})
}

// beat keeps a stream open through proxies.
const beat = 10 * time.Second

// events sends what happens until the client goes. A client that comes back with
// Last-Event-ID is told what it has missed, at whichever controller.
func (q *request) events() error {
	if !acceptsEvents(q.r) {
		return refuse(http.StatusNotAcceptable, "this is a stream: ask with Accept: text/event-stream")
	}
	types, light := q.r.URL.Query()["event_type"], q.r.URL.Query().Get("plan-format") == "light"
	control := http.NewResponseController(q.w)
	q.w.Header().Set("Content-Type", "text/event-stream")
	q.w.Header().Set("Cache-Control", "no-cache")
	last := q.r.Header.Get("Last-Event-ID")
	if last == "" {
		_, last, _ = q.o.Catalog.Events("")
	}
	attached := fmt.Sprintf(`{"remoteAddress":%q,"eventType":"event_stream_attached","timestamp":%q}`, q.r.RemoteAddr, q.o.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
	if _, err := fmt.Fprintf(q.w, "event: event_stream_attached\ndata: %s\n\n", attached); err != nil {
		return nil
	}
	timer := time.NewTicker(beat)
	defer timer.Stop()
	for {
		moved := q.o.Catalog.Moved()
		list, newest, gap := q.o.Catalog.Events(last)
		if gap {
			// What comes is all that is kept; who must know all reads the apps anew.
			fmt.Fprint(q.w, "event: event_stream_gap\ndata: {\"eventType\":\"event_stream_gap\"}\n\n")
		}
		for _, e := range list {
			if len(types) > 0 && !slices.Contains(types, e.Type) {
				continue
			}
			data := e.Data
			if light && e.Light != nil {
				data = e.Light
			}
			if _, err := fmt.Fprintf(q.w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, data); err != nil {
				return nil
			}
		}
		last = newest
		if control.Flush() != nil {
			return nil
		}
		select {
		case <-q.r.Context().Done():
			return nil
		case <-moved:
		case <-timer.C:
			if q.o.Allow != nil { // who was removed meanwhile hears no more
				if _, err := q.o.Allow(q.r, auth.Get, q.noun); err != nil {
					return nil
				}
			}
			if _, err := fmt.Fprint(q.w, "\r\n"); err != nil {
				return nil
			}
		}
	}
}

func acceptsEvents(r *http.Request) bool {
	for _, a := range r.Header.Values("Accept") {
		for _, one := range []string{"text/event-stream", "*/*"} {
			if strings.Contains(a, one) {
				return true
			}
		}
	}
	return r.Header.Get("Accept") == ""
}
