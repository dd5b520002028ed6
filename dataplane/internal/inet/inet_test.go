package inet

import (
	"net/netip"
	"testing"
	"unsafe"
)

func TestBytesLieInMemoryAsOnTheWire(t *testing.T) {
	for _, s := range []string{"198.18.0.10", "fd77:6569:7200::10", "::", "0.0.0.0"} {
		a := netip.MustParseAddr(s)
		words := Words(a)
		if got := *(*[16]byte)(unsafe.Pointer(&words)); got != a.As16() {
			t.Errorf("%s: got the bytes %x, want %x", a, got, a.As16())
		}
		if got := Address(words); got != a {
			t.Errorf("%s came back as %s", a, got)
		}
	}
	if got := Address(Words(netip.MustParseAddr("::ffff:10.80.0.1"))); got != netip.MustParseAddr("10.80.0.1") {
		t.Errorf("a mapped address came back as %s", got)
	}
	port := Port(0x1234)
	if got := *(*[2]byte)(unsafe.Pointer(&port)); got != [2]byte{0x12, 0x34} {
		t.Errorf("port 0x1234: got the bytes %x", got)
	}
	if got := Port(port); got != 0x1234 {
		t.Errorf("port 0x1234 came back as %#x", got)
	}
}
