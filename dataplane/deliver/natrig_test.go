package deliver

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/weirproject/weir/dataplane/internal/inet"
	"github.com/weirproject/weir/testenv"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type nat_result -output-suffix _test Nat testdata/nat.c -- -O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter

const (
	xdpDrop = 1
	xdpPass = 2
	xdpTX   = 3
)

// natRig runs bpf/nat.h, as testdata/nat.c calls it, on single packets.
type natRig struct {
	testing.TB
	NatObjects
}

var (
	own4, own6         = netip.MustParseAddr("10.80.0.31"), netip.MustParseAddr("fd00:80::31")
	outside4, outside6 = ap("10.90.0.5:8080"), ap("[fd00:90::5]:8080")
)

func newNAT(t testing.TB) *natRig {
	t.Helper()
	testenv.NeedBPF(t)
	r := &natRig{TB: t}
	if err := LoadNatObjects(&r.NatObjects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { r.Close() })
	r.config(50000, 15536)
	return r
}

func (r *natRig) config(first, ports uint16) {
	r.Helper()
	c := NatNatConfig{FirstPort: first, Ports: ports}
	c.Own4.WordBe, c.Own6.WordBe = encodeAddress(own4).WordBe, encodeAddress(own6).WordBe
	if err := r.NatConfig.Put(uint32(0), &c); err != nil {
		r.Fatal(err)
	}
}

func (r *natRig) forward(backend netip.AddrPort, in []byte) (uint32, []byte) {
	r.Helper()
	b := NatBackendEnd{PortBe: inet.Port(backend.Port())}
	b.Addr.WordBe = encodeAddress(backend.Addr()).WordBe
	if err := r.Picked.Put(uint32(0), &b); err != nil {
		r.Fatal(err)
	}
	word, out, err := r.WeirNatForward.Test(in)
	if err != nil {
		r.Fatal(err)
	}
	return word, out
}

func (r *natRig) reply(in []byte) (uint32, []byte) {
	r.Helper()
	word, out, err := r.WeirNatReply.Test(in)
	if err != nil {
		r.Fatal(err)
	}
	return word, out
}

func (r *natRig) counted(what NatNatResult) (total uint64) {
	r.Helper()
	var perCPU []NatNatCount
	if err := r.NatCounts.Lookup(uint32(what), &perCPU); err != nil {
		r.Fatal(err)
	}
	for _, n := range perCPU {
		total += n.Times
	}
	return total
}

// sourcePort of the transport behind a header without options.
func sourcePort(f []byte) uint16 {
	if f[ethernet]>>4 == 6 {
		return binary.BigEndian.Uint16(f[ethernet+40:])
	}
	return binary.BigEndian.Uint16(f[ethernet+20:])
}

type natFamily struct {
	name                 string
	client, vip, backend netip.AddrPort
	own                  netip.Addr
	inner                int
}

var natFamilies = []natFamily{
	{"v4", cli4, vip4, outside4, own4, 20},
	{"v6", cli6, vip6, outside6, own6, 40},
}
