package answers

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
	"github.com/weirproject/weir/dataplane/internal/bulk"
	"github.com/weirproject/weir/dataplane/internal/inet"
)

// flagsFixed are those of every answer: QR and AA.
const flagsFixed = 1<<15 | 1<<10

// setConfig writes the one element of the map dns_config. The seed of an earlier
// process stays, for the names that it wrote.
func (a *Answerer) setConfig(t Table, c *dataplane.Changes) error {
	var held bpf.DnsAnswerDnsConfig
	m := a.maps[bpf.DnsAnswerMapDnsConfig]
	if err := m.Lookup(uint32(0), &held); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if a.seed == 0 {
		if a.seed = held.Seed; a.seed == 0 {
			a.seed = rand.Uint64() | 1
		}
	}
	want := bpf.DnsAnswerDnsConfig{Seed: a.seed, FlagsBe: inet.Port(t.Flags | flagsFixed)}
	for _, at := range t.Listen {
		if len(t.Listen) > 0 && at.Port() != t.Listen[0].Port() {
			return fmt.Errorf("listen: %s has another port than %s", at, t.Listen[0])
		}
		if want.ListenCount == uint32(MaxListen) {
			break // those beyond are asked in user space alone
		}
		want.Listen[want.ListenCount].WordBe = inet.Words(at.Addr())
		want.ListenCount++
		want.PortBe = inet.Port(at.Port())
	}
	for i, p := range t.Clients {
		if i == MaxClients {
			break // likewise
		}
		want.Clients[i] = rangeOf(p)
		want.ClientCount++
	}
	if held != want {
		if err := a.silence(); err != nil { // it is not written at once
			return err
		}
		if err := m.Put(uint32(0), &want); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
		a.count(c, a.config != nil && *a.config == want, "configuration", "0")
	}
	a.config = &want
	return nil
}

func rangeOf(p netip.Prefix) (r bpf.DnsAnswerDnsRange) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96 // it is mapped
	}
	ones := netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
	mask, _ := ones.Prefix(bits)
	r.Net.WordBe, r.Mask.WordBe = inet.Words(p.Masked().Addr()), inet.Words(mask.Addr())
	return r
}

// setZones makes the map dns_zones hold the SOA records. One that does not fit is
// left out: then the proxy answers what needs it.
func (a *Answerer) setZones(zones [][]byte, c *dataplane.Changes) error {
	m := a.maps[bpf.DnsAnswerMapDnsZones]
	held, err := bulk.Hash[uint32, bpf.DnsAnswerDnsZone](m)
	if err != nil {
		return fmt.Errorf("read the zones: %w", err)
	}
	for i, soa := range zones {
		if len(soa) > MaxSOA || uint32(i) >= m.MaxEntries() {
			continue
		}
		key, want := uint32(i), zoneOf(soa)
		now, there := held[key]
		delete(held, key)
		isIntact := now.First == now.Last
		now.First, now.Last = 0, 0
		if there && isIntact && now == want {
			continue
		}
		a.value++
		want.First, want.Last = a.value, a.value
		if err := m.Put(&key, &want); err != nil {
			return fmt.Errorf("write zone %d: %w", i, err)
		}
		a.count(c, i < len(a.zones) && bytes.Equal(a.zones[i], soa), "zone", fmt.Sprint(i))
	}
	for key := range held {
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove zone %d: %w", key, err)
		}
		c.Removed++
	}
	a.zones = zones
	return nil
}

func zoneOf(soa []byte) (z bpf.DnsAnswerDnsZone) {
	name, raw := [MaxSOA / 8]uint64{}, [MaxSOA]byte{}
	copy(raw[:], soa)
	for i := range name {
		name[i] = nativeWord(raw[8*i:])
	}
	z.Size, z.Soa = uint64(len(soa)), name
	return z
}

// Beat tells the program that the names are right: it answers for the next three
// seconds. It does nothing while that is not sure.
func (a *Answerer) Beat() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.current == nil {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	return a.beat(uint64(now.Nano()))
}

// Silence stops the program at once, until the next Beat.
func (a *Answerer) Silence() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	return a.silence()
}

func (a *Answerer) silence() error { return a.beat(0) }

func (a *Answerer) beat(at uint64) error {
	if err := a.maps[bpf.DnsAnswerMapDnsBeat].Put(uint32(0), &bpf.DnsAnswerDnsBeat{AtNs: at}); err != nil {
		return fmt.Errorf("write the heartbeat: %w", err)
	}
	return nil
}
