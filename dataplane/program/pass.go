package program

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/bpf"
	"github.com/weirproject/weir/dataplane"
)

// placed is a service of a table and what the kernel holds of it; entry is nil
// for one that was left out.
type placed struct {
	service *dataplane.Service
	entry   *entry
}

// pass is one Set.
type pass struct {
	start    time.Time
	table    dataplane.Table
	verify   bool // everything is compared with the kernel
	ranges   bpf.BalanceRanges
	prefixes []netip.Prefix
	order    []placed
	changed  []int // indexes into order: what has to be set
	gone     []*entry
	touched  map[*entry]bool                   // entries of changed and gone
	claimed  map[bpf.BalanceFrontendKey]*entry // by services of changed
	released []bpf.BalanceFrontendKey          // that entries had before
	fresh    int                               // how many of claimed nobody had before
	literals map[bpf.BalanceAddress]uint32     // read back
	left     map[string]error                  // services left out, and why
}

// begin finds out what there is to do: all that is not, by its pointer, what
// the Set before has made; or everything.
func (b *Balancer) begin(t dataplane.Table) (*pass, error) {
	p := &pass{
		start: time.Now(), table: t, order: make([]placed, len(t.Services)),
		touched: map[*entry]bool{}, claimed: map[bpf.BalanceFrontendKey]*entry{}, left: map[string]error{},
	}
	if err := p.encodeRanges(); err != nil {
		return nil, err
	}
	p.verify = b.order == nil || p.start.Sub(b.verified) >= b.options.VerifyEvery ||
		b.made.ranges == nil || !sameRanges(b.made.ranges, &p.ranges)
	if !p.verify && b.replaced(p) {
		return p, nil
	}
	seen := make(map[string]bool, len(t.Services))
	for i, s := range t.Services {
		if seen[s.Name] {
			p.left[s.Name] = errors.New("the name is given twice")
			continue
		}
		seen[s.Name] = true
		e := b.entries[s.Name]
		p.order[i] = placed{s, e}
		if p.verify || e == nil || e.source != s {
			p.change(i)
		}
	}
	for name, e := range b.entries {
		if !seen[name] {
			p.gone = append(p.gone, e)
			p.touched[e] = true
		}
	}
	return p, nil
}

// replaced fills p for a table with the same names in the same order as last
// time, which is what a health check's result makes: it looks at pointers only.
func (b *Balancer) replaced(p *pass) bool {
	if len(b.order) != len(p.table.Services) {
		return false
	}
	for i, s := range p.table.Services {
		old := b.order[i]
		if old.service == nil || old.service != s && old.service.Name != s.Name {
			p.changed, p.touched = nil, map[*entry]bool{}
			return false
		}
		p.order[i] = placed{s, old.entry}
		if old.service != s || old.entry == nil {
			p.change(i)
		}
	}
	return true
}

func (p *pass) change(i int) {
	p.changed = append(p.changed, i)
	if e := p.order[i].entry; e != nil {
		p.touched[e] = true
	}
}

// watches tells whether a service that is set asks for failures.
func (p *pass) watches() bool {
	return slices.ContainsFunc(p.changed, func(i int) bool { return p.order[i].entry != nil && p.order[i].service.Watch })
}

// leave takes the service at index i out.
func (p *pass) leave(i int, why error) {
	p.left[p.order[i].service.Name] = why
	if e := p.order[i].entry; e != nil {
		p.gone = append(p.gone, e)
		p.order[i].entry = nil
	}
}

func (p *pass) encodeRanges() error {
	if len(p.table.Ranges) > len(p.ranges.Entry) {
		return fmt.Errorf("set virtual ips: %d ranges are given, at most %d fit", len(p.table.Ranges), len(p.ranges.Entry))
	}
	for i, r := range p.table.Ranges {
		if !r.IsValid() {
			return fmt.Errorf("set virtual ips: range %d is no prefix", i)
		}
		p.prefixes = append(p.prefixes, r)
		p.ranges.Entry[i].Net, p.ranges.Entry[i].Mask = encodePrefix(r)
	}
	p.ranges.Count = uint32(len(p.table.Ranges))
	return nil
}

// isLiteral tells whether the address lies outside of the ranges.
func (p *pass) isLiteral(a bpf.BalanceAddress) bool {
	address := decodeAddress(a)
	return !slices.ContainsFunc(p.prefixes, func(r netip.Prefix) bool { return r.Contains(address) })
}

// sameRanges compares but for the flag, which follows from the frontends.
func sameRanges(a, b *bpf.BalanceRanges) bool {
	return a.Entry == b.Entry && a.Count == b.Count
}
