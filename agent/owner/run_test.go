package owner

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/testenv"
	"golang.org/x/sys/unix"
)

// elector is one without sockets, for what needs none.
func elector(o Options) *Elector {
	o.Family, o.VRID, o.Priority, o.Interval = IPv4, 7, 100, interval
	e := &Elector{o: o, wake: make(chan struct{}, 1)}
	e.status.Counters.Ignored = map[Fault]uint64{}
	return e
}

func TestWhatIsNoAdvertisementIsIgnoredAndCounted(t *testing.T) {
	good, source, destination := example(IPv4)
	made := func(change func(*packet)) []byte {
		p := good
		change(&p)
		return p.encode(source, destination)
	}
	as := made(func(*packet) {})
	sum := append([]byte(nil), as...)
	sum[7]++
	for name, c := range map[string]struct {
		d    datagram
		want Fault
	}{
		"through a router":   {datagram{as, high, destination, 254}, BadTTL},
		"no control message": {datagram{as, high, destination, 0}, BadTTL},
		"checksum":           {datagram{sum, source, destination, hops}, BadChecksum},
		"short":              {datagram{as[:5], source, destination, hops}, BadLength},
		"version 2":          {datagram{append([]byte{2<<4 | 1}, as[1:]...), source, destination, hops}, BadVersion},
		"other group":        {datagram{made(func(p *packet) { p.VRID = 8 }), source, destination, hops}, OtherGroup},
		"from here":          {datagram{as, source, destination, hops}, OwnPacket},
		"no interval":        {datagram{made(func(p *packet) { p.Interval = 0 }), source, destination, hops}, BadInterval},
	} {
		e := &election{Elector: elector(Options{}), state: State{Role: Standby, Deadline: start}}
		if c.want == OwnPacket {
			e.self = source
		}
		before := e.state
		e.hear(c.d)
		if s := e.State(); e.state != before || s.Counters.Ignored[c.want] != 1 || s.Counters.Received != 0 {
			t.Errorf("%s: counters %+v, want %s; state %+v", name, s.Counters, c.want, e.state)
		}
	}
}

func TestAdvertisementsThatDifferAreTakenAndCounted(t *testing.T) {
	p, source, destination := example(IPv4)
	for name, c := range map[string]struct {
		change func(*packet)
		want   uint64
	}{
		"alike":           {func(*packet) {}, 0},
		"interval":        {func(p *packet) { p.Interval = time.Second }, 1},
		"other addresses": {func(p *packet) { p.Addresses = p.Addresses[:1] }, 1},
		"resignation":     {func(p *packet) { p.Priority, p.Addresses = 0, nil }, 0},
	} {
		e := &election{Elector: elector(Options{}), state: State{Role: Standby, Deadline: start}, wanted: p.Addresses}
		changed := p
		c.change(&changed)
		e.hear(datagram{changed.encode(source, destination), source, destination, hops})
		if s := e.State(); s.Counters.Mismatched != c.want || s.Counters.Received != 1 || e.state.Deadline.Equal(start) {
			t.Errorf("%s: counters %+v, state %+v", name, s.Counters, e.state)
		}
	}
}

// opened opens a segment on lo of a namespace of its own.
func opened(t *testing.T, family Family) (s *segment) {
	t.Helper()
	testenv.NeedNetns(t)
	must(t, onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s, err = openSegment("lo", family)
		}
		return err
	}))
	t.Cleanup(func() { s.close() })
	return s
}

func TestNodeThatCannotSendIsNoOwner(t *testing.T) {
	var told []bool
	e := &election{Elector: elector(Options{OnChange: func(o bool) { told = append(told, o) }}), self: mine}
	e.o.Log = slog.New(slog.DiscardHandler)
	e.link = opened(t, IPv4)
	must(t, e.link.close())
	e.state = State{Role: Standby, Deadline: time.Now()}
	e.step(Tick{})
	if e.state.Role != Idle || len(told) != 0 {
		t.Errorf("a mute standby has become %s, told %v", e.state.Role, told)
	}
	e.failed = 0
	for i, want := range []Role{Owner, Owner, Idle} {
		if i == 0 {
			e.state = State{Role: Owner}
		}
		e.state.Deadline = time.Now()
		e.step(Tick{})
		if e.state.Role != want {
			t.Errorf("after %d failures the owner is %s, want %s", i+1, e.state.Role, want)
		}
	}
	if len(told) != 1 || told[0] {
		t.Errorf("told %v, want false once", told)
	}
	if c := e.State().Counters; c.Failed != 4 || c.Sent != 0 {
		t.Errorf("counters %+v", c)
	}
}

func TestElectorSaysWhyItTakesNoPart(t *testing.T) {
	e := &election{Elector: elector(Options{})}
	e.link = opened(t, IPv4)
	says := func(want string) {
		t.Helper()
		if got, err := e.fit(); err != nil || got != want {
			t.Errorf("fit() = %q, %v, want %q", got, err, want)
		}
	}
	says(notReady)
	e.Ready(true)
	says(noGroup)
	must(t, e.SetAddresses([]netip.Addr{ten}))
	says(linkDown)
	e.link.index = 99
	if _, err := e.fit(); err == nil {
		t.Error("an interface of another index is taken for the same")
	}
}

func TestAddressesOfTheOtherFamilyAreRefused(t *testing.T) {
	e := elector(Options{})
	if err := e.SetAddresses([]netip.Addr{ten, six}); err == nil || !strings.Contains(err.Error(), six.String()) {
		t.Errorf("SetAddresses = %v", err)
	}
	if err := e.SetAddresses([]netip.Addr{eleven, ten, eleven, netip.MustParseAddr("::ffff:198.18.0.10")}); err != nil || len(e.addresses) != 2 {
		t.Errorf("SetAddresses = %v, addresses %v", err, e.addresses)
	}
}

func TestElectorOptionsAreChecked(t *testing.T) {
	good := Options{Interface: "weir-none", Family: IPv4, VRID: 1, Priority: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Options){
		"interface": func(o *Options) { o.Interface = "" },
		"family":    func(o *Options) { o.Family = 5 },
		"vrid":      func(o *Options) { o.VRID = 0 },
		"priority":  func(o *Options) { o.Priority = 255 },
		"interval":  func(o *Options) { o.Interval = 15 * time.Millisecond },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("New with wrong %s: %v", field, err)
		}
	}
	if _, err := New(good); err == nil {
		t.Error("New on an interface that is not there works")
	}
}

func TestRunEndsWhenTheInterfaceIsGone(t *testing.T) {
	testenv.NeedNetns(t)
	s := newSpace(t)
	s.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
	var e *Elector
	must(t, onThread(func() (err error) {
		if err = unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err == nil {
			e, err = New(Options{Interface: "eth0", Family: IPv6, VRID: 1, Priority: 1})
		}
		return err
	}))
	done := make(chan error, 1)
	go func() { done <- e.Run(t.Context()) }()
	s.ip("link", "del", "eth0")
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run = nil, want that the interface is gone")
		}
	case <-time.After(10 * time.Second):
		t.Error("Run goes on without its interface")
	}
	if s := e.State(); s.Reason != stopped || s.Role != Idle {
		t.Errorf("State() = %+v", s)
	}
}
