package verdict

import (
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
)

// message makes one of the log's messages from attributes.
func message(t *testing.T, attributes ...netlink.Attribute) []byte {
	t.Helper()
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{2, 0, 0, 0}, data...)
}

func TestParseReadsHeaders(t *testing.T) {
	four := make([]byte, 28)
	four[0], four[3], four[9] = 0x45, 28, 17
	copy(four[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2, 0, 5, 0, 80})
	six := make([]byte, 56) // with a hop-by-hop header
	six[0], six[5], six[6], six[40], six[48+1], six[48+3] = 0x60, 16, 0, 6, 7, 22
	six[8], six[23], six[24], six[39] = 0xfd, 1, 0xfd, 2
	prefix := netlink.Attribute{Type: 10, Data: []byte("weir:drop:a:b\x00")}
	hook := func(n byte) netlink.Attribute { return netlink.Attribute{Type: 1, Data: []byte{8, 0, n, 0}} }
	device := netlink.Attribute{Type: 4, Data: []byte{0, 0, 0, 7}}
	for _, c := range []struct {
		payload []byte
		hook    byte
		want    string
	}{
		{four, 1, "input 10.0.0.1:5 10.0.0.2:80"}, {four, 0, "input 10.0.0.1:5 10.0.0.2:80"}, {six, 2, "forward [fd00::1]:7 [fd00::2]:22"},
		{four[:20], 3, "output 10.0.0.1:0 10.0.0.2:0"}, {nil, 3, "output invalid AddrPort invalid AddrPort"},
	} {
		d, ok := parse(message(t, hook(c.hook), device, netlink.Attribute{Type: 9, Data: c.payload}, prefix))
		if got := d.Hook + " " + d.Source.String() + " " + d.Destination.String(); !ok || got != c.want {
			t.Errorf("got %q, %v, want %q", got, ok, c.want)
		}
		if d.Rule != "a:b" || d.Verdict != Dropped || d.In != 7 {
			t.Errorf("got %+v", d)
		}
	}
}

func TestParseLeavesOthersAlone(t *testing.T) {
	for _, data := range [][]byte{nil, {1, 2}, message(t), message(t, netlink.Attribute{Type: 10, Data: []byte("docker: x\x00")}), {2, 0, 0, 0, 1, 0, 9, 0}} {
		if d, ok := parse(data); ok {
			t.Errorf("%v: got %+v", data, d)
		}
	}
}

func TestPrefixFits(t *testing.T) {
	if got := Prefix(Dropped, strings.Repeat("x", 300), 63); len(got) != 63 || !strings.HasPrefix(got, "weir:drop:xxx") {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 9, 0, 0x60, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) { parse(data) })
}
