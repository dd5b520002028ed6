package dnsbench

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The test's own binary is the server that a benchmark starts.
func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func rowOf(server string, rates ...float64) Row {
	row := Row{Part: "small", Kind: "A", Server: server}
	for _, r := range rates {
		row.rounds = append(row.rounds, measurement{Rate: r, CPU: 600 / r})
	}
	return row
}

func TestRatiosAreOfTheBestInTheSameRound(t *testing.T) {
	r := Result{Rows: []Row{rowOf(weir, 100, 200, 300), rowOf(knot, 100, 100, 100), rowOf(nsd, 50, 400, 100)}}
	r.ratio("rate", 1.1, false, rate, "small", "A", knot, nsd, unbound)
	r.ratio("cpu", 1, true, cpu, "small", "A", knot, nsd)
	r.ratio("absent", 1, false, rate, "small", "A", coredns)
	r.ratio("absent", 1, false, rate, "large", "A", knot)
	r.own("own", 0.9, "small", "A", "small", "A")
	want := []Bar{
		{What: "rate", Want: 1.1, Got: Spread{1, 0.5, 3}}, {What: "cpu", Want: 1, Most: true, Got: Spread{1, 1. / 3, 2}},
		{What: "own", Want: 0.9, Got: Spread{1, 1, 1}},
	}
	if len(r.Bars) != len(want) {
		t.Fatalf("got %+v", r.Bars)
	}
	for i, bar := range r.Bars {
		if bar != want[i] || bar.Met() != (i > 0) {
			t.Errorf("got %+v, want %+v", bar, want[i])
		}
	}
	var text bytes.Buffer
	if err := r.Markdown(&text); err != nil || !strings.Contains(text.String(), "| rate | ≥ 1.1 | 1.00 (0.50–3.00) | missed |") || !strings.Contains(text.String(), "| cpu | ≤ 1 | 1.00 (0.33–2.00) | met |") {
		t.Errorf("%v:\n%s", err, text.String())
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for field, o := range map[string]Options{"Rounds": {Rounds: -1}, "Each": {Each: time.Millisecond}, "Names": {Names: -1}, "Overload": {Overload: -1}, "Only": {Only: []string{"bind"}}} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: got %v, want an error about %s", o, err, field)
		}
	}
	if err := (Options{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestAgeOfAnAnswer(t *testing.T) {
	asked := time.Now()
	for passed, want := range map[time.Duration]time.Duration{0: 0, 70 * time.Millisecond: 70 * time.Millisecond, -time.Second: 0} {
		at := asked.Add(-passed).UnixMilli()
		m := new(dns.Msg).SetQuestion(clockName+".", dns.TypeA)
		a := netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)})
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: clockName + ".", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: a.AsSlice()}}
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if age, ok := ageOf(wire, asked); !ok || age != want {
			t.Errorf("%s: got %s, %v", passed, age, ok)
		}
	}
	if _, ok := ageOf([]byte("no answer"), asked); ok {
		t.Error("what is no answer has an age")
	}
}

func TestOurServerObeysAndAnswers(t *testing.T) {
	b := &bed{dir: t.TempDir(), peers: "none"}
	s, files, err := b.ours(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	state, err := s.tell("change")
	if err != nil || state.Goroutines == 0 || state.Heap == 0 {
		t.Fatalf("got %+v, %v", state, err)
	}
	packets, err := packetsOf(files["a"], 50)
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFlood(s, append(packets, broken(packets, 50)...))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	during, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	f.run(during, 1000)
	for range 100 {
		during, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		p, err := s.probe(during, clockName, 100)
		stop()
		if err != nil {
			t.Fatal(err)
		}
		if len(p.age) > 0 && s.memory() > 0 && f.got > 0 {
			return
		}
	}
	t.Errorf("no answer tells its time; %d answers to the flood", f.got)
}

func TestZonesSayTheSame(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "zone")
	if err := writeZone(path, 10); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parser, count := dns.NewZoneParser(file, "", path), 0
	for _, ok := parser.Next(); ok; _, ok = parser.Next() {
		count++
	}
	if parser.Err() != nil || count != 3+2*10 || len(snapshot(10).Records) != 2*10 {
		t.Errorf("%d records, %v", count, parser.Err())
	}
	z, err := newLibraryZone(10)
	if err != nil || len(z.records) != 2*10 {
		t.Errorf("%v, %v", z, err)
	}
}
