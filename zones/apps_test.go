package zones

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
)

func TestAppsFollowTheirTasks(t *testing.T) {
	at := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	s := &api.Snapshot{
		Nodes: []api.Node{{Name: "a1", Addresses: at("10.80.0.11", "fd00::11")}},
		Tasks: []api.Task{
			{ID: "1", App: "/shop/web", Labels: map[string]string{"v": "1"}, Node: "a1", Addresses: at("9.0.0.5"), State: api.TaskRunning},
			{ID: "2", App: "/shop/web", Labels: map[string]string{"v": "1"}, Node: "a1", Addresses: at("9.0.0.3"), State: api.TaskStarting},
			{ID: "3", App: "/shop/web", Labels: map[string]string{"v": "2"}, Node: "a1", Addresses: at("9.0.0.4"), State: api.TaskRunning},
			{ID: "4", App: "/db", Node: "a1", State: api.TaskRunning},
			{ID: "5", App: "/gone", Node: "a1", Addresses: at("9.0.0.9"), State: api.TaskFailed},
			{ID: "6", App: "/lost", Node: "a9", State: api.TaskRunning},
		},
	}
	got := StateOf(s).Apps
	want := []App{
		{ID: "/db", Instances: []Instance{{at("10.80.0.11")[0], "a1"}, {at("fd00::11")[0], "a1"}}},
		{ID: "/lost"},
		{ID: "/shop/web", Labels: map[string]string{"v": "1"}, Instances: []Instance{{at("9.0.0.3")[0], "a1"}, {at("9.0.0.5")[0], "a1"}}},
		{ID: "/shop/web", Labels: map[string]string{"v": "2"}, Instances: []Instance{{at("9.0.0.4")[0], "a1"}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	policy := &api.Policy{
		Zones: map[string]api.Zone{"web": {Apps: &api.AppSelector{IDs: []string{"/shop/*"}}}, "new": {Apps: &api.AppSelector{Labels: map[string]string{"v": "2"}}}},
	}
	v := Bind(policy, StateOf(s), time.Now())
	if got := v.Members("new"); len(got) != 1 || got[0].Addr() != at("9.0.0.4")[0] {
		t.Errorf("the zone new has %v", got)
	}
	if got := v.Members("nothing"); got != nil {
		t.Errorf("no zone has %v", got)
	}
	id := v.Whois(at("9.0.0.4")[0])
	if !reflect.DeepEqual(id, api.ZoneIdentity{Apps: []string{"/shop/web"}, Zones: []string{"new", "web"}}) {
		t.Errorf("got %+v", id)
	}
	if id := v.Whois(at("10.80.0.11")[0]); !reflect.DeepEqual(id, api.ZoneIdentity{Nodes: []string{"a1"}, Apps: []string{"/db"}}) {
		t.Errorf("got %+v", id)
	}
	if StateOf(&api.Snapshot{}).Apps != nil {
		t.Error("apps without tasks")
	}
}

func TestAMatrixIsDrawnInEveryFormat(t *testing.T) {
	m := Bind(&api.Policy{}, State{}, time.Now()).Matrix()
	for _, format := range append(MatrixFormats, "") {
		if text, media, err := m.Draw(format); len(text) == 0 || media == "" || err != nil {
			t.Errorf("%q: got %q, %q, %v", format, text, media, err)
		}
	}
	if _, _, err := m.Draw("png"); err == nil {
		t.Error("png was drawn")
	}
}
