package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/dataplane/iptables"
	"github.com/weirproject/weir/dataplane/nft"
)

func TestAutoTakesTheFirstFilterThatWorksAndSaysWhy(t *testing.T) {
	tries := func(nftables, ipt error) []filterTry {
		return []filterTry{
			{nftablesFilter, func() error { return nftables }, func() (zoneFilter, error) { return nft.New(nft.Options{}) }},
			{iptablesFilter, func() error { return ipt }, func() (zoneFilter, error) { return iptables.New(iptables.Options{}) }},
		}
	}
	no := errors.New("no such module")
	for _, c := range []struct {
		wanted        string
		nftables, ipt error
		backend, why  string
	}{
		{"auto", nil, nil, "nftables", "nftables works here"},
		{"auto", nil, no, "nftables", "nftables works here"},
		{"auto", no, nil, "iptables", "nftables does not work here: no such module"},
		{"iptables", nil, nil, "iptables", "zones.backend is iptables"},
		{"nftables", nil, nil, "nftables", "zones.backend is nftables"},
		{"nftables", no, nil, "", "set zones.mode to off to go without"},
		{"auto", no, no, "", "iptables does not work here: no such module"},
	} {
		filter, why, err := pickFilter(tries(c.nftables, c.ipt), c.wanted)
		backend := ""
		if err == nil {
			backend = filter.Backend()
		} else {
			why = err.Error()
		}
		if backend != c.backend || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %q, %q, want %q, %q", c.wanted, backend, why, c.backend, c.why)
		}
	}
}

func TestWhatIsLearntHasAnEnd(t *testing.T) {
	l := &zoneLearner{learnt: map[string]map[netip.Addr]time.Time{}}
	a, now := netip.MustParseAddr("192.0.2.1"), time.Now()
	for i := range maxLearntNames {
		if !l.note(fmt.Sprint(i), []netip.Addr{a}, now.Add(time.Minute)) {
			t.Fatalf("name %d is too many", i)
		}
	}
	if l.note("another", []netip.Addr{a}, now.Add(time.Minute)) {
		t.Error("there is no bound")
	}
	if !l.note("0", []netip.Addr{a}, now.Add(time.Second)) || !l.learnt["0"][a].Equal(now.Add(time.Minute)) {
		t.Error("a shorter TTL ends what a longer one has allowed")
	}
	if l.known(now.Add(2 * time.Minute)); len(l.learnt) != 0 {
		t.Errorf("%d names are kept past their end", len(l.learnt))
	}
}
