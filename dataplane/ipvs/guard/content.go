package guard

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// Names in the table.
const (
	judgeChain      = "judge"
	newChain        = "new-only"
	unservedChain   = "unserved"
	emptyChain      = "empty"
	refuseChain     = "refuse"
	masqueradeChain = "masquerade"
)

// families are the two, as suffixes of names and as v6 of functions.
var families = map[string]bool{"4": false, "6": true}

// The sets, less their families' suffixes.
const (
	networkSet  = "networks"  // intervals: value "" for a start, "end" for an end
	frontendMap = "frontends" // key -> chain that packets go to; "" lets them pass
	drainingSet = "draining"  // keys of the frontends that are
)

// content is what the table holds.
type content struct {
	sets  map[string]map[string]string // by name with suffix
	marks map[string][]byte            // chain -> marks of its rules, in their order
}

func newContent() *content {
	c := &content{sets: map[string]map[string]string{}, marks: map[string][]byte{}}
	for suffix := range families {
		for _, name := range []string{networkSet, frontendMap, drainingSet} {
			c.sets[name+suffix] = map[string]string{}
		}
	}
	return c
}

// key is the frontend as packets carry it: address, protocol and port, each
// padded to four bytes.
func key(f Frontend) string {
	protocol := byte(unix.IPPROTO_TCP)
	if f.UDP {
		protocol = unix.IPPROTO_UDP
	}
	b := append(f.At.Addr().AsSlice(), protocol, 0, 0, 0)
	return string(append(binary.BigEndian.AppendUint16(b, f.At.Port()), 0, 0))
}

func suffix(a netip.Addr) string {
	if a.Is6() {
		return "6"
	}
	return "4"
}

// build writes the rules as content.
func build(r Rules) *content {
	c := newContent()
	c.addNetworks(r.Networks)
	for f, v := range r.Frontends {
		c.sets[frontendMap+suffix(f.At.Addr())][key(f)] = map[Verdict]string{Open: "", Draining: newChain, Empty: emptyChain}[v]
		if v == Draining {
			c.sets[drainingSet+suffix(f.At.Addr())][key(f)] = ""
		}
	}
	for _, chain := range chains() {
		for _, exprs := range chain.rules {
			c.marks[chain.name] = append(c.marks[chain.name], mark(exprs)...)
		}
	}
	return c
}

// addNetworks writes the networks as interval sets hold them: the first address
// of each, and the first one past its end, flagged. Neighbours are joined.
func (c *content) addNetworks(networks []netip.Prefix) {
	all := slices.Clone(networks)
	for i := range all {
		all[i] = all[i].Masked()
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for i := 0; i < len(all); {
		first, end := all[i].Addr(), past(all[i])
		for i++; i < len(all) && end.IsValid() && all[i].Addr().BitLen() == first.BitLen() && all[i].Addr().Compare(end) <= 0; i++ {
			if e := past(all[i]); !e.IsValid() || e.Compare(end) > 0 {
				end = e
			}
		}
		set := c.sets[networkSet+suffix(first)]
		set[string(first.AsSlice())] = ""
		if end.IsValid() {
			set[string(end.AsSlice())] = "end"
		}
	}
}

// past is the first address after the prefix; invalid at the family's end.
func past(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if free := (i+1)*8 - p.Bits(); free >= 8 {
			b[i] = 0xff
		} else if free > 0 {
			b[i] |= 1<<free - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Next()
}

// mark identifies a rule by what it does; it is kept in the rule's user data.
func mark(exprs []expr.Any) []byte {
	hash := sha256.New()
	for _, e := range exprs {
		if _, counter := e.(*expr.Counter); !counter {
			fmt.Fprintf(hash, "%T %+v\n", e, e)
		}
	}
	return hash.Sum(nil)[:8]
}

// sameRules tells whether two contents have the same rules.
func (c *content) sameRules(o *content) bool {
	return c != nil && o != nil && maps.EqualFunc(c.marks, o.marks, bytes.Equal)
}

// compare counts what a Set has done; last is nil before the first.
func compare(last, held, wanted *content) (c dataplane.Changes) {
	repair := last != nil
	if !held.sameRules(wanted) {
		if repair {
			c.Repaired++
		} else {
			c.Written++
		}
	}
	if held == nil {
		held = newContent()
	}
	if last == nil {
		last = newContent()
	}
	for name, set := range wanted.sets {
		for k, v := range set {
			if now, there := held.sets[name][k]; there && now == v || v == "end" {
				continue
			}
			if was, made := last.sets[name][k]; made && was == v {
				c.Repaired++
			} else {
				c.Written++
			}
		}
		for k, v := range held.sets[name] {
			if _, keep := set[k]; keep || v == "end" {
				continue
			}
			if _, made := last.sets[name][k]; repair && !made {
				c.Repaired++
			} else {
				c.Removed++
			}
		}
	}
	return c
}
