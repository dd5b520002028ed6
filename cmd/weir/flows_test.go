package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// flowAgent tells of two flows, a drop and what was lost, and then waits.
func flowAgent(t *testing.T, asked *string) string {
	t.Helper()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	curl := api.FlowEnd{Address: netip.MustParseAddrPort("10.80.0.12:40000"), ZoneIdentity: api.ZoneIdentity{Nodes: []string{"a2"}, Zones: []string{"private"}}, Process: 77, Command: "curl"}
	web := api.FlowEnd{Address: netip.MustParseAddrPort("10.80.0.11:8080"), ZoneIdentity: api.ZoneIdentity{Nodes: []string{"a1"}, Apps: []string{"/shop/web"}}, Tasks: []string{"web.1"}}
	vip := netip.MustParseAddrPort("198.18.0.10:80")
	tell := func(lines ...api.FlowLine) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			*asked = r.URL.RawQuery
			for _, line := range lines {
				_ = json.NewEncoder(w).Encode(line)
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+client.PathFlows, tell(
		api.FlowLine{Missing: []string{"UDP that is sent: no"}},
		api.FlowLine{Flow: &api.Flow{Began: noon, Protocol: api.TCP, From: curl, To: web, VIP: vip, Service: "web.shop", Side: "from", Verdict: api.FlowForwarded, Duration: api.Duration(1234 * time.Microsecond), Sent: 80, Received: 1200, Retransmits: 1, RTT: api.Duration(90 * time.Microsecond)}},
		api.FlowLine{Flow: &api.Flow{Began: noon, Protocol: api.TCP, From: api.FlowEnd{ZoneIdentity: api.ZoneIdentity{Nodes: []string{"a2"}}}, To: web, Side: "from", Verdict: api.FlowPending, Reason: "no answer so far", Open: true, Duration: api.Duration(1300 * time.Millisecond)}},
		api.FlowLine{Lost: &api.FlowsLost{Flows: 7}},
	))
	mux.HandleFunc("GET "+client.PathDrops, tell(
		api.FlowLine{Drop: &api.Drop{Time: noon, Reason: "NETFILTER_DROP", Text: "the zones deny it by ssh", Advice: "ask ann", File: "policy.yaml", Line: 9, Interface: "eth0", Protocol: "tcp", From: curl, To: web, Length: 60}},
	))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func TestFlowsAndDropsAreShown(t *testing.T) {
	asked := ""
	agent := flowAgent(t, &asked)
	for name, line := range map[string]string{
		"flows": "flows --for 1s", "flows-compact": "flows --for 1s -o compact", "flows-json": "flows --for 1s -o json",
		"drops": "drops --for 1s", "drops-compact": "drops --for 1s -o compact",
	} {
		stdout, stderr, code := run(t, map[string]string{"WEIR_SOCKET": agent}, strings.Fields(line)...)
		told := strings.Contains(stderr, "does not show UDP") && strings.Contains(stderr, "7 flows")
		if code != 0 || told != strings.HasPrefix(name, "flows") {
			t.Errorf("%s: exit %d, %q", name, code, stderr)
		}
		golden(t, name+".txt", stdout)
	}
	if _, stderr, code := run(t, map[string]string{"WEIR_SOCKET": agent}, strings.Fields("flows --for 100ms --from app=web --from zone=a --to node=b --verdict denied --vip web --port 80 --protocol tcp")...); code != 0 {
		t.Fatal(stderr)
	}
	if want := "from=app%3Dweb&from=zone%3Da&port=80&protocol=tcp&to=node%3Db&verdict=denied&vip=web"; asked != want {
		t.Errorf("asked %s, want %s", asked, want)
	}
}

func TestFlowsRefuseWrongUse(t *testing.T) {
	for line, want := range map[string]string{
		"flows --from color=red": "--from: ", "flows --verdict maybe": "--verdict: ", "flows --protocol sctp": "--protocol: ",
		"flows --to address=x": "--to: ", "flows -o yaml": "table, compact, json", "drops --for 0s": "--for", "flows --port 99999": "99999",
	} {
		if _, stderr, code := run(t, nil, strings.Fields(line)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q", line, code, stderr)
		}
	}
}
