package deliver

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weirproject/weir/bpf"
)

// checkIngress holds one frame against what the program may do with it: leave
// it as it is, drop it, or deliver exactly what a good tunnel asked for.
func checkIngress(t *testing.T, d *Deliverer, in []byte) (delivered bool) {
	t.Helper()
	if !isRunnable(in) {
		return false
	}
	word, out := ingress(t, d, in)
	switch {
	case word == tcxDrop || word == tcxNext && bytes.Equal(in, out):
		return false
	case word != tcxNext:
		t.Fatalf("got the word %d for %x", int32(word), in)
	}
	// It was delivered: to a backend in the table, and nothing else changed but
	// destination and checksums.
	inside := in[len(in)-(len(out)-ethernet):]
	got := out[ethernet:]
	from, to, before := ends(got), netip.Addr{}, netip.Addr{}
	before, to = ends(inside)[1], from[1]
	if to != back4.Addr() && to != back6.Addr() {
		t.Fatalf("delivered to %s: %x became %x", to, in, out)
	}
	if before != vip4.Addr() && before != vip6.Addr() {
		t.Fatalf("delivered what was for %s: %x became %x", before, in, out)
	}
	if from[0] != ends(inside)[0] {
		t.Fatalf("the source changed: %x became %x", in, out)
	}
	if n := len(in) - len(out); n < 40 || n > 72 {
		t.Fatalf("%d bytes were taken off: %x became %x", n, in, out)
	}
	return true
}

// isRunnable: the kernel's test run takes no frame without a whole IP header,
// which a device may still bring; TestOthersPassUntouched has such in an
// extension header.
func isRunnable(in []byte) bool {
	if len(in) < ethernet+20 || len(in) > 3000 { // it must fit a page
		return false
	}
	return in[12] != 0x86 || in[13] != 0xdd || len(in) >= ethernet+40
}

// ends are source and destination of an IP packet.
func ends(ip []byte) [2]netip.Addr {
	if ip[0]>>4 == 4 {
		return [2]netip.Addr{netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))}
	}
	return [2]netip.Addr{netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))}
}

// seeds are tunnelled packets of every kind.
func seeds() (all [][]byte) {
	for _, f := range families {
		for _, p := range []packet{
			{protocol: tcp, flags: syn, options: []byte{2, 4, 5, 180}},
			{protocol: udp, payload: bytesOf(20)},
			{protocol: udp, payload: bytesOf(16), more: true, id: 9},
			{protocol: udp, payload: bytesOf(16), later: true, id: 9},
		} {
			p.from, p.to = f.client, f.vip
			all = append(all, f.wrap(p.ip()))
		}
		all = append(all, f.wrap(icmp(f.client.Addr(), f.vip.Addr(), packet{from: f.vip, to: f.client, protocol: udp}.ip())))
	}
	return all
}

// TestNoHeaderFieldMakesAWrongRewrite changes every byte of every header, to
// every value, and cuts packets short at every place.
func TestNoHeaderFieldMakesAWrongRewrite(t *testing.T) {
	d := sharedDeliverer(t)
	for _, seed := range seeds() {
		for i := range seed {
			for _, bit := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
				checkIngress(t, d, edit(seed, func(f []byte) {
					f[i] ^= bit
					if i >= ethernet && i < ethernet+20 && f[ethernet]>>4 == 4 && i != ethernet+10 && i != ethernet+11 {
						resum(f)
					}
				}))
			}
			checkIngress(t, d, seed[:i])
		}
	}
}

func TestRandomChangesMakeNoWrongRewrite(t *testing.T) {
	d := sharedDeliverer(t)
	random := rand.New(rand.NewPCG(1, 2))
	all, delivered := seeds(), 0
	for range 20000 {
		f := bytes.Clone(all[random.IntN(len(all))])
		for range 1 + random.IntN(4) {
			f[ethernet+random.IntN(len(f)-ethernet)] = byte(random.Uint32())
		}
		if f[ethernet]>>4 == 4 {
			resum(f)
		}
		if checkIngress(t, d, f) {
			delivered++
		}
	}
	if delivered == 0 {
		t.Error("no packet was delivered, so nothing was tested")
	}
}

func FuzzTunnels(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		checkIngress(t, sharedDeliverer(t), in)
	})
}

// FuzzAnswers: what leaves is of the same length, and changed only when it came
// from a backend.
func FuzzAnswers(f *testing.F) {
	for _, x := range families {
		f.Add(packet{from: x.back, to: x.client, protocol: tcp, flags: syn | ack, options: []byte{2, 4, 5, 180}}.frame())
		f.Add(packet{from: x.back, to: x.client, protocol: udp, payload: bytesOf(9), more: true}.frame())
		f.Add(frame(icmp(x.back.Addr(), x.client.Addr(), packet{from: x.client, to: x.back, protocol: udp}.ip())))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if !isRunnable(in) {
			return
		}
		d := sharedDeliverer(t)
		for _, x := range families {
			ingress(t, d, x.wrap(packet{from: x.client, to: x.vip, protocol: tcp, flags: syn}.ip()))
		}
		word, out := run(t, d, bpf.DeliverProgWeirAnswer, in)
		if word != tcxNext || len(out) != len(in) {
			t.Fatalf("got the word %d and %d bytes for %x", int32(word), len(out), in)
		}
	})
}
