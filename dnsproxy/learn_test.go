package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// student learns what it is told, when it may.
type student struct {
	may  chan struct{}
	mu   sync.Mutex
	said []string
}

func (s *student) Wants(name string) bool { return name == "deb.example.com" }

func (s *student) Learn(name string, addresses []netip.Addr, ttl time.Duration) {
	<-s.may
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, fmt.Sprint(name, addresses, ttl.Round(time.Second)))
}

func TestAddressesAreLearntBeforeTheClientHasThem(t *testing.T) {
	up := newUpstream(t, answering(dns.RcodeSuccess, "%s 60 IN CNAME x.example.net.", "x.example.net. 30 IN A 192.0.2.1", "x.example.net. 30 IN A 192.0.2.2"))
	s := &student{may: make(chan struct{})}
	o := anywhere()
	o.Upstreams, o.Learner = []netip.AddrPort{up.at}, s
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	t.Cleanup(func() { p.flights.close(); p.forward.close() })
	resolve(t, p, "other.example.com.", dns.TypeA) // nobody wants it
	answered := make(chan bool)
	go func() {
		packet, _ := new(dns.Msg).SetQuestion("DEB.example.com.", dns.TypeA).Pack()
		_, _, err := p.ask(context.Background(), packet)
		answered <- err == nil
	}()
	select {
	case <-answered:
		t.Fatal("the client had its answer before it was learnt")
	case s.may <- struct{}{}:
	}
	if !<-answered {
		t.Error("no answer")
	}
	want := "deb.example.com[192.0.2.1 192.0.2.2] 30s"
	if len(s.said) != 1 || s.said[0] != want {
		t.Errorf("got %q, want %q", s.said, want)
	}
	// From the cache it goes out at once, for what was learnt lasts as long.
	resolve(t, p, "deb.example.com.", dns.TypeA)
	if len(s.said) != 1 {
		t.Errorf("got %q after an answer from the cache", s.said)
	}
}
