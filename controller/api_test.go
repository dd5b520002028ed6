package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/server"
)

// open are the routes that need no identity.
var open = map[string]bool{
	"GET /healthz": true, "GET /readyz": true, "GET " + client.PathCA: true,
	"POST " + client.PathJoin: true, "POST " + client.PathJoinController: true, "POST " + client.PathJoinOperator: true, "POST " + client.PathLogin: true,
}

func TestEveryRouteIsShutToWhoShowsNothingAndToForeignTokens(t *testing.T) {
	s := newSite(t)
	n := s.join("a1", firstID+"1")
	for _, r := range server.Routes() {
		path := strings.NewReplacer("{kind}", "service", "{key...}", "x", "{name}", "a2", "{id}", "x").Replace(r.Path)
		name := r.Method + " " + r.Path
		response, p := s.raw(r.Method, path, "{}")
		if open[name] {
			continue
		}
		if response.StatusCode != http.StatusUnauthorized || p.Detail == "" || response.Header.Get(client.HeaderCluster) != s.member.ClusterID {
			t.Errorf("%s: got %s, %+v", name, response.Status, p)
		}
		if response, _ := s.raw(r.Method, path, "{}", "Authorization", "Bearer weir1.nonsense"); response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with nonsense: got %s", name, response.Status)
		}
		if r.Path == client.PathStream || r.Path == client.PathReport || r.Path == client.PathRenew {
			continue // a node's own
		}
		request, err := http.NewRequest(r.Method, s.url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		response, err = n.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("%s by a node: got %s", name, response.Status)
		}
	}
}

func TestVersionsGuardWrites(t *testing.T) {
	s := newSite(t)
	zero := uint64(0)
	web := object(service("web", "web:80", "10.0.0.1:80"))
	first, err := s.Put(t.Context(), "service", "web.default", web, &zero)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), "service", "web.default", web, &zero); status(err) != http.StatusPreconditionFailed {
		t.Errorf("make what is there: got %v", err)
	}
	second, err := s.Put(t.Context(), "service", "web.default/tcp", object(service("web", "web:80", "10.0.0.2:80")), &first.Version)
	if err != nil || second.Version <= first.Version {
		t.Fatalf("got %+v, %v", second, err)
	}
	if err := s.Delete(t.Context(), "service", "web.default", &first.Version); status(err) != http.StatusPreconditionFailed {
		t.Errorf("delete an old version: got %v", err)
	}
	if again, err := s.Put(t.Context(), "service", "web.default", second.Object, nil); err != nil || again.Version != second.Version {
		t.Errorf("a write of the same: got %+v, %v", again, err)
	}
	if err := s.Delete(t.Context(), "service", "web.default", &second.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Object(t.Context(), "service", "web.default"); status(err) != http.StatusNotFound {
		t.Errorf("got %v", err)
	}
	if err := s.Delete(t.Context(), "service", "web.default", nil); status(err) != http.StatusNotFound {
		t.Errorf("delete nothing: got %v", err)
	}
}

func TestOfManyWhoWriteAtOnceEachIsDoneOrRefused(t *testing.T) {
	s := newSite(t)
	var writers sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 8 {
		writers.Go(func() {
			for j := range 5 {
				for {
					old, err := s.Object(t.Context(), "record", "count/TXT")
					version, n := old.Version, 0
					if err == nil {
						var r api.Record
						_ = json.Unmarshal(old.Object, &r)
						_, _ = fmt.Sscan(r.Data[0], &n)
					}
					_, err = s.Put(t.Context(), "record", "count/TXT", object(api.Record{Name: "count", Type: api.RecordTXT, Data: []string{fmt.Sprint(n + 1)}}), &version)
					if err == nil {
						break
					}
					if status(err) != http.StatusPreconditionFailed && status(err) != http.StatusConflict {
						t.Errorf("writer %d, %d: %v", i, j, err)
						return
					}
				}
				mu.Lock()
				done++
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	last, err := s.Object(t.Context(), "record", "count/TXT")
	if err != nil || !strings.Contains(string(last.Object), fmt.Sprintf("%q", fmt.Sprint(done))) {
		t.Errorf("%d writes made %s, %v", done, last.Object, err)
	}
}

func TestWhatNoNodeCouldApplyIsRefusedWithTheField(t *testing.T) {
	s := newSite(t)
	if _, err := s.Put(t.Context(), "service", "web.shop", object(api.Service{Name: "web", Namespace: "shop", VIPs: []api.VIP{{Name: "web", Port: 80}}}), nil); err != nil {
		t.Fatal(err)
	}
	node := object(map[string]any{"name": "a1", "addresses": []string{"10.0.0.1"}})
	if _, err := s.Put(t.Context(), "node", "a1", node, nil); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, kind, key, object string
		status                  int
		field                   string
	}{
		{"an unknown kind", "cake", "x", `{}`, 422, "kind"},
		{"no object", "service", "x", `"name"`, 422, ""},
		{"an unknown key", "service", "x.default", `{"name": "x", "vip": []}`, 422, "vip"},
		{"a wrong type", "service", "x.default", `{"name": 7}`, 422, "name"},
		{"a bad value", "service", "x.default", `{"name": "x", "vips": ["x:80"], "backends": [{"address": "10.0.0.1:0"}]}`, 422, "backends[0].address"},
		{"another's name", "service", "y.default", `{"name": "x", "vips": ["x:80"]}`, 400, ""},
		{"an address that a node has", "service", "x.default", `{"name": "x", "vips": ["10.0.0.1:80"]}`, 422, "vips[0]"},
		{"two owners of an address", "service", "x.default", `{"name": "x", "vips": ["web:80"], "namespace": "shop"}`, 400, ""},
		{"a policy whose test fails", "policy", "policy", `{"zones": {"z": {"nodes": {"names": ["a1"]}}}, "tests": [{"from": "192.0.2.1", "to": "z", "port": "tcp/22", "expect": "allow"}]}`, 422, "tests[0]"},
		{"a record below a record", "record", "c/CNAME", `{"name": "web.shop", "type": "CNAME", "data": ["x"]}`, 400, ""},
	} {
		_, err := s.Put(t.Context(), test.kind, test.key, json.RawMessage(test.object), nil)
		var p *client.Problem
		if !errors.As(err, &p) || p.Status != test.status {
			t.Errorf("%s: got %v (%d), want %d", test.name, err, status(err), test.status)
			continue
		}
		if test.field != "" && (len(p.Faults) == 0 || p.Faults[0].Field != test.field) {
			t.Errorf("%s: got faults %+v, want the field %s", test.name, p.Faults, test.field)
		}
	}
	if list, err := s.Objects(t.Context(), ""); err != nil || len(list.Objects) != 2 {
		t.Errorf("something was kept: %+v, %v", list, err)
	}
}

func TestMalformedAndOversizedBodiesAreRefused(t *testing.T) {
	s := newSite(t)
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", "/v1/objects/record/x/TXT", `{"name":`, 422},
		{"PUT", "/v1/objects/record/x/TXT", `{"name": "` + strings.Repeat("x", 5<<20) + `"}`, 413},
		{"POST", client.PathApply, `{"objects": []}`, 400},
		{"POST", client.PathApply, `nonsense`, 400},
		{"POST", client.PathApply, `{"things": []}`, 400},
		{"POST", client.PathTokens, `{"role": "king"}`, 422},
		{"POST", client.PathJoin, `{"id": "x"}`, 422},
		{"POST", client.PathLogin, `{"token": "x"}`, 401},
		{"GET", client.PathAudit + "?limit=-1", ``, 400},
		{"GET", client.PathWatch + "?after=x", ``, 400},
		{"GET", client.PathWatch + "?kind=cake", ``, 404},
		{"GET", client.PathObjects + "/cake", ``, 404},
		{"GET", "/v1/objects/service/none", ``, 404},
		{"GET", client.PathNodes + "/none", ``, 404},
		{"DELETE", client.PathTokens + "/none", ``, 404},
		{"DELETE", client.PathControllers + "/none", ``, 404},
		{"GET", client.PathBackup, ``, 409}, // in memory
		{"PATCH", client.PathTokens, ``, 405},
	} {
		response, p := s.raw(test.method, test.path, test.body, "Authorization", s.bearer())
		if response.StatusCode != test.want || test.want != 405 && p.Detail == "" {
			t.Errorf("%s %.60s %.40s: got %s, %+v", test.method, test.path, test.body, response.Status, p)
		}
	}
	if response, _ := s.raw("PUT", "/v1/objects/record/x/TXT", "{}", "Authorization", s.bearer(), "If-Match", "x"); response.StatusCode != 400 {
		t.Errorf("a bad If-Match: got %s", response.Status)
	}
}

func TestManyObjectsAreAppliedTogetherOrNotAtAll(t *testing.T) {
	s := newSite(t)
	web, dns := service("web", "web:80", "10.0.0.1:80"), service("dns", "198.18.0.53:53", "10.0.0.1:53")
	asked := api.Apply{Objects: []api.ApplyObject{{Kind: "service", Object: object(web)}, {Kind: "service", Object: object(dns)}}, DryRun: true}
	would, err := s.Apply(t.Context(), asked)
	if err != nil || !would.DryRun || len(would.Changes) != 2 || would.Changes[0].Action != api.ObjectCreated {
		t.Fatalf("dry: got %+v, %v", would, err)
	}
	if list, _ := s.Objects(t.Context(), ""); len(list.Objects) != 0 {
		t.Fatal("a dry run wrote something")
	}
	asked.DryRun = false
	done, err := s.Apply(t.Context(), asked)
	if err != nil || done.Revision == 0 || done.ClusterID != s.member.ClusterID {
		t.Fatalf("got %+v, %v", done, err)
	}
	web.MaxConnections = 7
	clash := service("other", "198.18.0.53:53", "10.0.0.1:53")
	_, err = s.Apply(t.Context(), api.Apply{Objects: []api.ApplyObject{{Kind: "service", Object: object(web)}, {Kind: "service", Object: object(clash)}}})
	var p *client.Problem
	if !errors.As(err, &p) || p.Status != 422 || len(p.Faults) != 1 || p.Faults[0].Key != "other.default/tcp" || p.Faults[0].Field != "vips[0]" {
		t.Fatalf("two services at one address: got %v", err)
	}
	if got, _ := s.Object(t.Context(), "service", "web.default"); strings.Contains(string(got.Object), "max_connections") {
		t.Error("half of what was refused was done")
	}
	mixed, err := s.Apply(t.Context(), api.Apply{Objects: []api.ApplyObject{
		{Kind: "service", Object: object(web)}, {Kind: "service", Key: "dns.default/tcp", Delete: true}, {Kind: "service", Object: object(clash)},
	}})
	if err != nil || fmt.Sprintf("%s %s %s", mixed.Changes[0].Action, mixed.Changes[1].Action, mixed.Changes[2].Action) != "changed deleted created" {
		t.Errorf("got %+v, %v", mixed, err)
	}
	if twice, err := s.Apply(t.Context(), api.Apply{Objects: []api.ApplyObject{{Kind: "service", Object: object(web)}, {Kind: "service", Object: object(web)}}}); err == nil {
		t.Errorf("one object twice: got %+v", twice)
	}
	if same, err := s.Apply(t.Context(), api.Apply{Objects: []api.ApplyObject{{Kind: "service", Object: object(web)}}}); err != nil || same.Changes[0].Action != api.ObjectUnchanged {
		t.Errorf("nothing new: got %+v, %v", same, err)
	}
	records, err := s.Audit(t.Context(), 10)
	if err != nil || len(records) == 0 || records[0].Subject == "" || !strings.Contains(records[0].Noun, "service/web.default/tcp") || records[0].Revision == 0 {
		t.Errorf("the audit has %+v, %v", records, err)
	}
}

func TestMoreObjectsThanACommitTakesAreAppliedAll(t *testing.T) {
	s := newSite(t)
	var asked api.Apply
	for i := range 300 {
		asked.Objects = append(asked.Objects, api.ApplyObject{Kind: "service", Object: object(service(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d:80", i), "10.0.0.1:80"))})
	}
	done, err := s.Apply(t.Context(), asked)
	if err != nil || s.c.Hub().Wait(t.Context(), done.Revision) != nil {
		t.Fatal(err)
	}
	state := s.c.Hub().State()
	if len(state.Shared.Services) != 300 || len(state.Shared.VIPs) != 300 {
		t.Errorf("%d services, %d addresses", len(state.Shared.Services), len(state.Shared.VIPs))
	}
	seen := map[string]bool{}
	for name, v := range state.Shared.VIPs {
		if seen[v.V4.String()] || !v.V4.IsValid() {
			t.Errorf("%s has %s", name, v.V4)
		}
		seen[v.V4.String()] = true
	}
}

func TestNamedAddressesStayAndAreFreed(t *testing.T) {
	s := newSite(t)
	address := func() api.VIPAddresses {
		// A read waits for what was written.
		if _, err := s.Objects(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		return s.c.Hub().State().Shared.VIPs["web.default"]
	}
	for _, backend := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		if _, err := s.Put(t.Context(), "service", "web.default", object(service("web", "web:80", backend)), nil); err != nil {
			t.Fatal(err)
		}
	}
	first := address()
	if _, err := s.Put(t.Context(), "service", "x.default", object(service("x", "x:80")), nil); err != nil {
		t.Fatal(err)
	}
	if address() != first || !first.V4.IsValid() {
		t.Errorf("the address was %s and is %s", first.V4, address().V4)
	}
	if err := s.Delete(t.Context(), "service", "web.default", nil); err != nil {
		t.Fatal(err)
	}
	if address().V4.IsValid() {
		t.Error("the address is kept for nobody")
	}
}

func TestAWatchIsOrderedAndResumesWithoutAGap(t *testing.T) {
	s := newSite(t)
	const writes = 120
	go func() {
		for i := range writes {
			r := api.Record{Name: fmt.Sprintf("r%d", i%7), Type: api.RecordTXT, Data: []string{fmt.Sprint(i)}}
			if _, err := s.Put(context.WithoutCancel(t.Context()), "record", r.Key(), object(r), nil); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var seen []int
	after, cuts := uint64(0), 0
	errCut := errors.New("cut")
	for deadline := time.Now().Add(20 * time.Second); len(seen) < writes && time.Now().Before(deadline); {
		n := 0
		err := s.Watch(t.Context(), "record", max(after, 1), func(e api.WatchEvent) error {
			var r api.Record
			if err := json.Unmarshal(e.Object.Object, &r); err != nil {
				return err
			}
			var i int
			_, _ = fmt.Sscan(r.Data[0], &i)
			seen, after = append(seen, i), e.Revision
			if n++; n == 17 || len(seen) == writes {
				return errCut
			}
			return nil
		})
		if !errors.Is(err, errCut) {
			t.Fatalf("after %d events: %v", len(seen), err)
		}
		cuts++
	}
	for i, got := range seen {
		if got != i {
			t.Fatalf("event %d is of write %d", i, got)
		}
	}
	if len(seen) != writes || cuts < 5 {
		t.Errorf("%d events, %d cuts", len(seen), cuts)
	}
	if err := s.member.Store.Compact(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	if err := s.Watch(t.Context(), "record", 2, func(api.WatchEvent) error { return errCut }); status(err) != http.StatusGone {
		t.Errorf("a compacted revision: got %v", err)
	}
	synced := 0
	err := s.Watch(t.Context(), "record", 0, func(e api.WatchEvent) error {
		if e.Type == "sync" {
			return errCut
		}
		synced++
		return nil
	})
	if !errors.Is(err, errCut) || synced != 7 {
		t.Errorf("from nothing: %d objects, %v", synced, err)
	}
}

func TestTokensAreMadeListedAndTakenBack(t *testing.T) {
	s := newSite(t)
	token, err := s.CreateToken(t.Context(), api.TokenRequest{Role: "agent", TTL: api.Duration(time.Hour), Uses: 2, Node: "a1"})
	if err != nil || token.Secret == "" || token.Uses != 2 {
		t.Fatalf("got %+v, %v", token, err)
	}
	all, err := s.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Secret != "" {
			t.Error("a list tells secrets")
		}
	}
	if err := s.DeleteToken(t.Context(), token.ID); err != nil {
		t.Fatal(err)
	}
	operator := s.token(auth.RoleOperator, 1)
	if _, _, err := client.Login(t.Context(), []string{s.url}, operator); err != nil {
		t.Fatal(err)
	}
	if _, _, err := client.Login(t.Context(), []string{s.url}, operator); status(err) != http.StatusUnauthorized {
		t.Errorf("a token used twice: got %v", err)
	}
	info, err := s.Info(t.Context())
	if err != nil || info.ID != s.member.ClusterID || info.Controller != "c1" {
		t.Errorf("got %+v, %v", info, err)
	}
	controllers, err := s.Controllers(t.Context())
	if err != nil || len(controllers) != 1 || controllers[0].Name != "c1" {
		t.Errorf("got %+v, %v", controllers, err)
	}
}
