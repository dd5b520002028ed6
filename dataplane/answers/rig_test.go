package answers

import (
	"encoding/binary"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane/internal/sinktest"
	"github.com/weirproject/weir/dnsproxy"
	"github.com/weirproject/weir/testenv"
)

var (
	cli4, cli6   = ap("10.88.0.9:40000"), ap("[fd00:88::9]:40000")
	here4, here6 = ap("169.254.53.53:53"), ap("[fd53::53]:53")
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// direct makes a Names of a proxy's table, as the agent does.
type direct struct{ table *dnsproxy.Table }

func (d direct) Part(part, parts int) iter.Seq[Name] {
	return func(yield func(Name) bool) {
		for n := range d.table.DirectPart(part, parts) {
			if !yield(nameOf(n)) {
				return
			}
		}
	}
}

func (d direct) Find(wire string) (Name, bool) {
	n, ok := d.table.FindDirect(wire)
	return nameOf(n), ok
}

func (d direct) Len() int { return d.table.Len() }

func nameOf(d dnsproxy.Direct) Name {
	return Name{Wire: d.Name, A: Set(d.A), AAAA: Set(d.AAAA), Zone: d.Zone, ApexLength: d.ApexLength}
}

// fixed is names that a test writes down.
type fixed struct{ names map[string]Name }

func (f *fixed) Part(part, parts int) iter.Seq[Name] {
	return func(yield func(Name) bool) {
		for i, wire := range slices.Sorted(maps.Keys(f.names)) {
			if i%parts == part && !yield(f.names[wire]) {
				return
			}
		}
	}
}

func (f *fixed) Find(wire string) (Name, bool) { n, ok := f.names[wire]; return n, ok }

func (f *fixed) Len() int { return len(f.names) }

func compile(t testing.TB, s *api.Snapshot) *dnsproxy.Table {
	t.Helper()
	table, err := dnsproxy.Compile(s, dnsproxy.Options{Domain: "weir.internal", Aliases: []string{"mesos"}, Listen: here4.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// fleet has names with one and more addresses of one and both types, some that
// are too long or too many, an alias and a wildcard.
func fleet() *api.Snapshot {
	addresses := func(list ...string) (all []netip.Addr) {
		for _, s := range list {
			all = append(all, netip.MustParseAddr(s))
		}
		return all
	}
	return &api.Snapshot{
		Revision: 7,
		Nodes: []api.Node{
			{Name: "a1", Addresses: addresses("10.80.0.11", "fd00::11")},
			{Name: "a2", Addresses: addresses("10.80.0.12")},
			{Name: "c1", Addresses: addresses("fd00::2"), Role: api.RoleController},
		},
		Records: []api.Record{
			{Name: "one", Type: api.RecordA, Data: []string{"10.80.0.40"}},
			{Name: "two", Type: api.RecordA, Data: []string{"10.80.0.40", "10.80.0.41"}, TTL: ptr(61)},
			{Name: "eight", Type: api.RecordA, Data: series("10.80.1.", 8)},
			{Name: "nine", Type: api.RecordA, Data: series("10.80.1.", 9)},
			{Name: "six", Type: api.RecordAAAA, Data: []string{"fd00::1", "fd00::2", "fd00::3"}},
			{Name: "sixeight", Type: api.RecordAAAA, Data: series("fd00::", 8)},
			{Name: "both", Type: api.RecordA, Data: series("10.80.2.", 3)},
			{Name: "both", Type: api.RecordAAAA, Data: series("fd00:2::", 2)},
			{Name: "both", Type: api.RecordTXT, Data: []string{"text"}},
			{Name: "odd1", Type: api.RecordA, Data: []string{"10.80.0.43"}},
			{Name: repeat('x', 63) + "." + repeat('x', 42), Type: api.RecordA, Data: []string{"10.80.0.44"}},
			{Name: repeat('x', 63) + "." + repeat('x', 50), Type: api.RecordA, Data: []string{"10.80.0.45"}},
			{Name: "*.apps", Type: api.RecordA, Data: []string{"10.80.0.31"}},
			{Name: "alias", Type: api.RecordCNAME, Data: []string{"two"}},
			{Name: "text", Type: api.RecordTXT, Data: []string{"plain"}},
		},
	}
}

func repeat(c byte, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = c
	}
	return string(b)
}

func series(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, prefix+string('1'+rune(i)))
	}
	return all
}

func ptr[T any](v T) *T { return &v }

func tableOf(table *dnsproxy.Table) Table {
	return Table{Listen: []netip.AddrPort{here4, here6}, Flags: 1 << 7, Zones: table.DirectZones(), Names: direct{table}}
}

func newOptions(t testing.TB) Options {
	t.Helper()
	testenv.NeedBPF(t)
	o := Options{PinDir: filepath.Join(sinktest.BPFFS(t), "weir", "answers"), MaxNames: 4096}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return o
}

func open(t testing.TB, o Options) *Answerer {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatalf("New: %+v", err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

const (
	tcxNext     = 0xffffffff
	tcxRedirect = 7
)

// run runs the program on one frame, after a beat.
func run(t testing.TB, a *Answerer, in []byte) (uint32, []byte) {
	t.Helper()
	if err := a.Beat(); err != nil {
		t.Fatal(err)
	}
	word, out, err := a.programs.Programs[bpf.DnsAnswerProgWeirDnsAnswer].Test(in)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return word, out
}

func counters(t testing.TB, a *Answerer) Counters {
	t.Helper()
	c, err := a.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sharedAnswerer has the names of fleet; it spares a test the loading.
func sharedAnswerer(t testing.TB) *Answerer {
	t.Helper()
	testenv.NeedBPF(t)
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "weir-answers-")
		if err != nil {
			shared.err = err
			return
		}
		if shared.err = unix.Mount("bpf", dir, "bpf", 0, ""); shared.err != nil {
			return
		}
		if shared.a, shared.err = New(Options{PinDir: filepath.Join(dir, "answers"), MaxNames: 4096}); shared.err == nil {
			shared.table = compile(t, fleet())
			_, shared.err = setNowhere(shared.a, tableOf(shared.table))
		}
		// The maps live as long as this process holds them; no pin is left.
		unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	})
	if shared.err != nil {
		t.Fatalf("open the shared answerer: %v", shared.err)
	}
	return shared.a
}

var shared struct {
	once  sync.Once
	a     *Answerer
	table *dnsproxy.Table
	err   error
}

// packet is a datagram from a client.
type packet struct {
	from, to netip.AddrPort
	payload  []byte
	sum      int // how its checksum is
}

const (
	sumRight   = iota
	sumNone    // 0
	sumPartial // that of the pseudo header alone
	sumWrong
)

// frame is the packet on the wire. Its destination is the hardware address of the
// device that PROG_TEST_RUN pretends.
func (p packet) frame() []byte {
	udp := binary.BigEndian.AppendUint16(nil, p.from.Port())
	udp = binary.BigEndian.AppendUint16(udp, p.to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(p.payload)))
	udp = append(append(udp, 0, 0), p.payload...)
	pseudo := append(append(p.from.Addr().AsSlice(), p.to.Addr().AsSlice()...), 0, 17, udp[4], udp[5])
	full := ^uint16(sum(append(pseudo, udp...)))
	if full == 0 {
		full = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], []uint16{full, 0, uint16(sum(pseudo)), full ^ 0x0101}[p.sum])
	frame := []byte{0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9}
	if p.to.Addr().Is6() {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, byte(len(udp)>>8), byte(len(udp)), 17, 64)
		return append(append(append(frame, p.from.Addr().AsSlice()...), p.to.Addr().AsSlice()...), udp...)
	}
	frame = append(frame, 8, 0, 0x45, 0, byte((20+len(udp))>>8), byte(20+len(udp)), 0, 7, 0x40, 0, 64, 17, 0, 0)
	frame = append(append(frame, p.from.Addr().AsSlice()...), p.to.Addr().AsSlice()...)
	resum(frame)
	return append(frame, udp...)
}

// resum puts the checksum of an IPv4 header right.
func resum(frame []byte) {
	frame[24], frame[25] = 0, 0
	binary.BigEndian.PutUint16(frame[24:], ^uint16(sum(frame[14:34])))
}

func sum(b []byte) (s uint32) {
	if len(b)%2 > 0 {
		b = append(b[:len(b):len(b)], 0)
	}
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return s
}

// answerIn checks an answer's frame and gives the message in it: whatever is
// turned round is turned round, and each sum is right.
func answerIn(t testing.TB, p packet, frame []byte) []byte {
	t.Helper()
	head := 42
	if p.to.Addr().Is6() {
		head = 62
	}
	if len(frame) < head {
		t.Fatalf("the answer's frame has %d bytes", len(frame))
	}
	want := packet{from: p.to, to: p.from, payload: frame[head:], sum: p.sum}
	if p.sum == sumNone {
		want.sum = sumRight
	}
	f := want.frame()
	copy(f, []byte{2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0})
	if head == 42 {
		f[19] = 0 // our own id
		resum(f)
	}
	if string(f) != string(frame) {
		t.Fatalf("the answer's frame\n got %x\nwant %x", frame, f)
	}
	return frame[head:]
}

// question packs one.
func question(t testing.TB, name string, qtype uint16, change ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	for _, c := range change {
		c(m)
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func edns(size uint16, do bool) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(size, do) } }
