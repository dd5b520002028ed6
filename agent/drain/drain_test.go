package drain

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

var (
	noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	web  = netip.MustParseAddrPort("10.80.0.11:8080")
	web2 = netip.MustParseAddrPort("10.80.0.12:8080")
)

func draining(address netip.AddrPort, timeout time.Duration) Backend {
	return Backend{Service: "web.shop", Protocol: api.TCP, Address: address, Timeout: timeout}
}

func state(t *Tracker, address netip.AddrPort) (api.BackendState, string) {
	return t.State("web.shop", api.TCP, address)
}

func TestADrainIsOverAfterItsTimeout(t *testing.T) {
	tracker := New(nil)
	wanted := []Backend{draining(web, 30*time.Second), draining(web2, 0)}
	if !tracker.Set(noon, wanted) {
		t.Error("two drains began and nothing changed")
	}
	if want := noon.Add(30 * time.Second); !tracker.Next().Equal(want) {
		t.Errorf("next: got %s, want %s", tracker.Next(), want)
	}
	if tracker.Set(noon.Add(30*time.Second-1), wanted) {
		t.Error("something changed before the time-out")
	}
	if got, reason := state(tracker, web); got != api.Up {
		t.Errorf("before the time-out: got %s (%s), want up", got, reason)
	}
	if !tracker.Set(noon.Add(30*time.Second), wanted) {
		t.Error("nothing changed at the time-out")
	}
	if got, reason := state(tracker, web); got != api.Down || reason != "drained: the 30s of its service are over" {
		t.Errorf("at the time-out: got %s (%s)", got, reason)
	}
	if got, _ := state(tracker, web2); got != api.Up {
		t.Errorf("without a time-out: got %s, want up", got)
	}
	if got, _ := tracker.State("web.shop", api.UDP, web); got != api.Up {
		t.Errorf("of another service: got %s, want up", got)
	}
	if !tracker.Next().IsZero() {
		t.Errorf("next: got %s, want none", tracker.Next())
	}
}

func TestADrainThatIsTakenBackBeginsAnew(t *testing.T) {
	tracker := New(nil)
	tracker.Set(noon, []Backend{draining(web, time.Minute)})
	tracker.Set(noon.Add(time.Minute), []Backend{draining(web, time.Minute)})
	if !tracker.Set(noon.Add(61*time.Second), nil) {
		t.Error("a drain was taken back and nothing changed")
	}
	if got, _ := state(tracker, web); got != api.Up {
		t.Errorf("got %s, want up", got)
	}
	tracker.Set(noon.Add(time.Hour), []Backend{draining(web, time.Minute)})
	if got, _ := state(tracker, web); got != api.Up {
		t.Errorf("a new drain: got %s, want up", got)
	}
}

func TestAChangedTimeoutCountsFromTheStart(t *testing.T) {
	tracker := New(nil)
	tracker.Set(noon, []Backend{draining(web, time.Hour)})
	tracker.Set(noon.Add(time.Minute), []Backend{draining(web, 30*time.Second)})
	if got, _ := state(tracker, web); got != api.Down {
		t.Errorf("a shorter one: got %s, want down", got)
	}
	if !tracker.Set(noon.Add(time.Minute), []Backend{draining(web, time.Hour)}) {
		t.Error("its state changed and Set does not tell")
	}
	if got, _ := state(tracker, web); got != api.Up {
		t.Errorf("a longer one: got %s, want up", got)
	}
}

func TestARestartDoesNotExtendADrain(t *testing.T) {
	before := New(nil)
	before.Set(time.Now(), []Backend{draining(web2, time.Minute), draining(web, time.Minute)})
	text, err := json.Marshal(before.Starts())
	if err != nil {
		t.Fatal(err)
	}
	var starts []Start
	if err := json.Unmarshal(text, &starts); err != nil {
		t.Fatal(err)
	}
	if len(starts) != 2 || starts[0].Backend != web {
		t.Fatalf("got %+v, want two, sorted", starts)
	}
	after := New(starts)
	after.Set(time.Now(), []Backend{draining(web, time.Minute)})
	if got := after.Starts(); len(got) != 1 || !got[0].Since.Equal(starts[0].Since) {
		t.Errorf("got %+v, want %+v", got, starts[:1])
	}
	after.Set(starts[0].Since.Add(time.Minute), []Backend{draining(web, time.Minute), draining(web2, time.Minute)})
	if got, _ := state(after, web); got != api.Down {
		t.Errorf("got %s, want down", got)
	}
	if got, _ := state(after, web2); got != api.Up {
		t.Errorf("one that was taken back meanwhile: got %s, want up", got)
	}
}

func TestAStartInTheFutureIsNow(t *testing.T) {
	tracker := New([]Start{{"web.shop", api.TCP, web, noon.Add(time.Hour)}})
	tracker.Set(noon, []Backend{draining(web, time.Minute)})
	if want := []Start{{"web.shop", api.TCP, web, noon}}; !reflect.DeepEqual(tracker.Starts(), want) {
		t.Errorf("got %+v, want %+v", tracker.Starts(), want)
	}
}
