package dnsproxy

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fields reads protobuf: varints and fixed numbers as such, bytes as strings.
func fields(t *testing.T, b []byte) map[uint64]any {
	t.Helper()
	all := map[uint64]any{}
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		b = b[n:]
		switch key & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			all[key>>3], b = v, b[n:]
		case 2:
			size, n := binary.Uvarint(b)
			all[key>>3], b = string(b[n:n+int(size)]), b[n+int(size):]
		case 5:
			all[key>>3], b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			t.Fatalf("wire type %d", key&7)
		}
	}
	return all
}

// frames reads a frame stream: control frames as their kinds, data as bytes.
func frames(t *testing.T, r io.Reader) (kinds []uint32, data [][]byte) {
	t.Helper()
	read := func(n uint32) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil
		}
		return b
	}
	for {
		head := read(4)
		if head == nil {
			return kinds, data
		}
		if n := binary.BigEndian.Uint32(head); n > 0 {
			data = append(data, read(n))
			continue
		}
		control := read(binary.BigEndian.Uint32(read(4)))
		kind := binary.BigEndian.Uint32(control)
		if kinds = append(kinds, kind); kind == streamStop {
			return kinds, data
		}
	}
}

func checkTap(t *testing.T, data [][]byte) {
	t.Helper()
	if len(data) != 4 {
		t.Fatalf("%d messages, want two queries and two answers", len(data))
	}
	for i, b := range data {
		outer := fields(t, b)
		if outer[1] != "a1" || outer[2] != "weir" || outer[15] != uint64(1) {
			t.Errorf("message %d: got %v", i, outer)
		}
		m := fields(t, []byte(outer[14].(string)))
		kind, content := uint64(tapQuery), m[10]
		if i%2 == 1 {
			kind, content = tapResponse, m[14]
		}
		if m[1] != kind || m[2] != uint64(1) || m[3] != uint64(1+i/2) || m[4] != "\x7f\x00\x00\x01" || m[5] != "\x7f\x00\x00\x01" {
			t.Errorf("message %d: got %v, want kind %d", i, m, kind)
		}
		q := new(dns.Msg)
		if err := q.Unpack([]byte(content.(string))); err != nil || q.Question[0].Name != "mesos." || q.Response != (i%2 == 1) {
			t.Errorf("message %d: got %v, %v", i, q, err)
		}
		seconds := m[8]
		if i%2 == 1 {
			seconds = m[12]
		}
		if age := time.Since(time.Unix(int64(seconds.(uint64)), 0)); age < 0 || age > time.Minute {
			t.Errorf("message %d is %v old", i, age)
		}
	}
}

// tapped runs a proxy that writes dnstap and asks it over UDP and TCP.
func tapped(t *testing.T, to string, lastly func()) {
	o := anywhere()
	o.Dnstap, o.NSID = to, "a1"
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(compile(t, fleet(), options()))
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for _, network := range []string{"udp", "tcp"} {
		if _, _, err := (&dns.Client{Net: network}).Exchange(new(dns.Msg).SetQuestion("mesos.", dns.TypeNS), p.Addrs()[0].String()); err != nil {
			t.Error(err)
		}
	}
	cancel()
	lastly()
	if err := <-ended; err != nil || p.tap.lost.Load() > 0 {
		t.Errorf("run: %v, %d lost", err, p.tap.lost.Load())
	}
}

func TestDnstapIntoAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tap")
	tapped(t, file, func() {})
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	kinds, data := frames(t, r)
	if len(kinds) != 2 || kinds[0] != streamStart || kinds[1] != streamStop {
		t.Errorf("control frames %v", kinds)
	}
	checkTap(t, data)
}

func TestDnstapIntoASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tap.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan [][]byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		ready := make([]byte, len(controlFrame(streamReady)))
		io.ReadFull(conn, ready)
		conn.Write(controlFrame(streamAccept))
		_, data := frames(t, conn)
		conn.Write(controlFrame(streamFinish))
		got <- data
	}()
	tapped(t, "unix:"+path, func() { checkTap(t, <-got) })
}

func TestDnstapWithoutAReceiverLosesAndGoesOn(t *testing.T) {
	tap := newTap("unix:"+filepath.Join(t.TempDir(), "nobody"), "", slog.New(slog.DiscardHandler))
	at := netip.MustParseAddrPort("[fd00::1]:53")
	for range tapQueue + 10 {
		tap.put(tapUDP, at, at, tapQuery, []byte("x"))
	}
	if n := tap.lost.Load(); n != 10 {
		t.Errorf("%d are counted as lost", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := tap.run(ctx); err != nil {
		t.Error(err)
	}
}
