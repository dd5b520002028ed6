package controller

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
	"github.com/weirproject/weir/api/trust"
	"github.com/weirproject/weir/controller/auth"
)

// do sends a node's request and returns what was answered.
func (n *node) do(method, path, body string) int {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), method, n.site.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	response, err := n.http.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

func TestReportsThatAreNoneAreRefused(t *testing.T) {
	s := newSite(t)
	n := s.join("a1", firstID+"1")
	for body, want := range map[string]int{
		"nonsense\n":                           400,
		`{"sequence": "x"}` + "\n":             400,
		strings.Repeat("x", 17<<20) + "\n":     400,
		`{"sequence": 1, "applied": 9}` + "\n": 200,
		"":                                     200,
	} {
		if got := n.do("POST", client.PathReport, body); got != want {
			t.Errorf("%.20q: got %d, want %d", body, got, want)
		}
	}
}

func TestANodeMovesOnlyInItsOwn(t *testing.T) {
	s := newSite(t)
	n, other := s.join("a1", firstID+"1"), s.join("a2", firstID+"2")
	n.start()
	n.has("itself", func(s *api.Snapshot) bool { return len(s.Nodes) == 1 })
	// It says that it is another.
	n.tell(api.Report{Status: &api.Status{Version: "v2", Node: api.Node{Name: "a2", Addresses: n.snapshot.Node.Addresses, Zone: "z", Draining: true}}})
	n.has("its own zone", func(s *api.Snapshot) bool {
		return len(s.Nodes) == 1 && s.Nodes[0].Name == "a1" && s.Nodes[0].Zone == "z" && !s.Nodes[0].Draining
	})
	other.start()
	other.has("both", func(s *api.Snapshot) bool { return len(s.Nodes) == 2 && s.Node.Name == "a2" && s.Node.Zone == "" })
}

func TestAnotherStreamOfANodeEndsTheFirst(t *testing.T) {
	s := newSite(t)
	n := s.join("a1", firstID+"1")
	n.start()
	n.has("itself", func(s *api.Snapshot) bool { return len(s.Nodes) == 1 })
	again := &node{t: t, site: s, name: "a1", http: &http.Client{Transport: n.http.Transport.(*http.Transport).Clone()}}
	t.Cleanup(again.stop)
	again.start()
	again.has("itself", func(s *api.Snapshot) bool { return len(s.Nodes) == 1 })
	eventually(t, "the end of the first", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.ended })
	if list, err := s.Nodes(t.Context()); err != nil || list.Nodes[0].Controller != "c1" {
		t.Errorf("the second one is not counted: %+v, %v", list, err)
	}
}

func TestACertificateOfAnotherClusterIsRefused(t *testing.T) {
	s, foreign := newSite(t), newSite(t)
	n := foreign.join("a1", firstID+"1")
	transport := n.http.Transport.(*http.Transport).Clone()
	own := transport.TLSClientConfig.GetClientCertificate
	transport.TLSClientConfig = trust.Config(s.member.ClusterID, s.member.Authority.Bundle, nil)
	transport.TLSClientConfig.GetClientCertificate = own
	n.http = &http.Client{Transport: transport}
	n.site = s
	if got := n.do("GET", client.PathStream, ""); got != http.StatusUnauthorized {
		t.Errorf("got %d", got)
	}
	// And nobody talks to a controller of another cluster.
	if _, _, err := client.Login(t.Context(), []string{foreign.url}, s.token(auth.RoleOperator, 1)); !errors.Is(err, trust.ErrPin) {
		t.Errorf("log in to another cluster: got %v", err)
	}
}

func TestABrowserWatchesEventsAndResumesByTheLastOne(t *testing.T) {
	s := newSite(t)
	first, err := s.Put(t.Context(), "record", "a/TXT", object(api.Record{Name: "a", Type: api.RecordTXT, Data: []string{"1"}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Put(t.Context(), "record", "b/TXT", object(api.Record{Name: "b", Type: api.RecordTXT, Data: []string{"2"}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.url+client.PathWatch, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Authorization", s.bearer())
	request.Header.Set("Last-Event-ID", strings.Trim(string(object(first.Version)), `"`))
	settings := trust.Config(s.member.ClusterID, s.member.Authority.Bundle, nil)
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	var got []string
	for len(got) < 3 && lines.Scan() {
		got = append(got, lines.Text())
	}
	if len(got) < 3 || got[0] != "id: "+string(object(second.Version)) || got[1] != "event: put" || !strings.Contains(got[2], `"b/TXT"`) {
		t.Errorf("got %q", got)
	}
}

func TestAnObjectThatNoCommitTakesIsRefused(t *testing.T) {
	s := newSite(t)
	r := api.Record{Name: "a", Type: api.RecordTXT}
	for range 1100 {
		r.Data = append(r.Data, strings.Repeat("x", 1000))
	}
	if _, err := s.Put(t.Context(), "record", "a/TXT", object(r), nil); status(err) != http.StatusUnprocessableEntity {
		t.Errorf("got %v", err)
	}
}
