package api

import (
	"net/netip"
	"testing"
)

func TestAFlowFilterPicks(t *testing.T) {
	f := &Flow{
		Protocol: TCP, Verdict: FlowDenied, VIP: netip.MustParseAddrPort("198.18.0.10:80"), Service: "web.default",
		From: FlowEnd{Address: netip.MustParseAddrPort("10.0.0.1:4000"), ZoneIdentity: ZoneIdentity{Nodes: []string{"a1"}, Zones: []string{"public"}}, Process: 7, Command: "curl"},
		To:   FlowEnd{Address: netip.MustParseAddrPort("10.0.0.2:8080"), ZoneIdentity: ZoneIdentity{Apps: []string{"/web"}}, Tasks: []string{"web.1"}},
	}
	for _, filter := range []FlowFilter{
		{}, {From: []string{"zone=public", "node=a1"}}, {From: []string{"process=curl"}}, {From: []string{"process=7"}}, {From: []string{"address=10.0.0.0/24"}},
		{To: []string{"app=web", "task=web.1", "address=10.0.0.2"}}, {Verdict: FlowDenied}, {VIP: "web"}, {VIP: "198.18.0.10"}, {VIP: "198.18.0.10:80"}, {Port: 80}, {Port: 8080}, {Protocol: TCP},
	} {
		if err := filter.Validate(); err != nil || !filter.Flow(f) {
			t.Errorf("%+v: not picked, %v", filter, err)
		}
	}
	for _, filter := range []FlowFilter{
		{From: []string{"zone=public", "node=a2"}}, {From: []string{"process=0"}}, {To: []string{"app=db"}}, {To: []string{"address=10.0.0.1"}}, {Verdict: FlowForwarded}, {VIP: "db"}, {Port: 81}, {Protocol: UDP},
	} {
		if err := filter.Validate(); err != nil || filter.Flow(f) {
			t.Errorf("%+v: picked, %v", filter, err)
		}
	}
	d := &Drop{Protocol: "udp", From: f.From, To: f.To}
	if !(FlowFilter{Port: 8080, Protocol: UDP, From: []string{"node=a1"}}).Drop(d) || (FlowFilter{Protocol: TCP}).Drop(d) || (FlowFilter{Port: 80}).Drop(d) {
		t.Error("the drop is picked wrongly")
	}
}
