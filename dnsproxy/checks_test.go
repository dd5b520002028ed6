package dnsproxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/weirproject/weir/api"
)

// forty addresses of one name, and three of another.
func crowded() *api.Snapshot {
	s := fleet()
	var forty []string
	for i := range 40 {
		forty = append(forty, fmt.Sprintf("10.9.0.%d", i))
	}
	s.Records = append(s.Records, api.Record{Name: "forty", Type: api.RecordA, Data: forty}, api.Record{Name: "three", Type: api.RecordA, Data: forty[:3]})
	return s
}

func TestFortyAddressesReachEveryClient(t *testing.T) {
	at := running(t, proxyOf(t, compile(t, crowded(), options()))).String()
	for _, c := range []struct {
		net     string
		size    uint16
		cut     bool
		longest int
	}{{"udp", 0, true, 512}, {"udp", 600, true, 600}, {"udp", 1232, false, 1232}, {"udp", 4096, false, 1232}, {"tcp", 0, false, dns.MaxMsgSize}} {
		q := new(dns.Msg).SetQuestion("forty.weir.internal.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(c.size, false)
		}
		m, _, err := (&dns.Client{Net: c.net}).Exchange(q, at)
		if err != nil {
			t.Fatal(err)
		}
		m.Compress = true
		if m.Truncated != c.cut || m.Len() > c.longest || len(m.Answer) == 40 == c.cut {
			t.Errorf("%s, limit %d: %d answers in %d bytes, cut %v; want cut %v", c.net, c.size, len(m.Answer), m.Len(), m.Truncated, c.cut)
		}
	}
}

func TestEachOfThreeAddressesComesFirstAsOften(t *testing.T) {
	p := proxyOf(t, compile(t, crowded(), options()))
	first := map[string]int{}
	const rounds = 3000
	for range rounds {
		first[ask(t, p, "three.weir.internal.", dns.TypeA).Answer[0].(*dns.A).A.String()]++
	}
	for address, n := range first {
		if n < rounds*25/100 || n > rounds*42/100 || len(first) != 3 {
			t.Errorf("%s came first %d times of %d", address, n, rounds)
		}
	}
}

// What we refuse or fail ourselves must fit the question, or clients wait on.
func TestOwnFailuresBelongToTheirQuestions(t *testing.T) {
	bare := proxyOf(t, compile(t, fleet(), options()))
	empty := proxyOf(t, nil)
	for name, m := range map[string]*dns.Msg{
		"nothing is known yet":  ask(t, empty, "wEb.Shop.Weir.Internal.", dns.TypeA, withID(0xBEEF)),
		"nobody to forward to":  ask(t, bare, "wWw.Example.Com.", dns.TypeA, withID(0xBEEF)),
		"a type that is no one": ask(t, bare, "wEb.Shop.Weir.Internal.", dns.TypeMAILB, withID(0xBEEF)),
	} {
		asked := m.Question[0].Name
		if !m.Response || m.Id != 0xBEEF || m.Rcode == dns.RcodeSuccess || strings.ToLower(asked) == asked {
			t.Errorf("%s: got %v", name, m)
		}
	}
}

func withID(id uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.Id = id } }

func TestClientsOfEveryKindGetProperAnswers(t *testing.T) {
	p := proxyOf(t, compile(t, fleet(), options()))
	options := func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}, &dns.EDNS0_PADDING{Padding: make([]byte, 16)}}
	}
	if m := ask(t, p, "A1.nOdE.weir.internal.", dns.TypeA, options); len(m.Answer) != 1 || m.Answer[0].Header().Name != "A1.nOdE.weir.internal." || m.IsEdns0() == nil {
		t.Errorf("unknown options and odd case: got %v", m)
	}
	if m := ask(t, p, "a1.node.weir.internal.", dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }); m.Rcode != dns.RcodeRefused && m.Rcode != dns.RcodeNotImplemented {
		t.Errorf("class CHAOS: got %v", m)
	}
	two := func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }
	if m := ask(t, p, "a1.node.weir.internal.", dns.TypeA, two); m.Rcode != dns.RcodeFormatError {
		t.Errorf("two questions: got %v", m)
	}
}
