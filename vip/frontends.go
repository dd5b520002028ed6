package vip

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// ledger says which service has which frontend.
type ledger struct {
	taken map[frontend]string // by which service
	names map[ServiceRef]bool
	owner map[netip.Addr]string
}

type frontend struct {
	address  netip.AddrPort
	protocol api.Protocol
}

// claim is an address that a service's VIP asks for.
type claim struct {
	vip     int // its number in the document
	address netip.AddrPort
}

func newLedger(s *api.Snapshot) *ledger {
	return &ledger{taken: map[frontend]string{}, names: map[ServiceRef]bool{}, owner: newFleet(s).owner}
}

// claims are the addresses of the service's VIPs; a VIP without one is invalid.
func claims(s *api.Snapshot, doc *api.Service) []claim {
	var all []claim
	for i, v := range doc.VIPs {
		addresses := s.Addresses(*doc, v)
		for _, a := range addresses {
			all = append(all, claim{i, netip.AddrPortFrom(a, v.Port)})
		}
		if len(addresses) == 0 {
			all = append(all, claim{vip: i})
		}
	}
	return all
}

// grant gives the service what its VIPs ask for, by family, sorted, as far as
// nobody has it.
func (l *ledger) grant(s *api.Snapshot, doc *api.Service) ([2][]netip.AddrPort, []Skipped) {
	return l.grantClaims(refOf(doc), doc.VIPs, claims(s, doc))
}

func (l *ledger) grantClaims(ref ServiceRef, vips []api.VIP, all []claim) (granted [2][]netip.AddrPort, skipped []Skipped) {
	if l.names[ref] {
		return granted, []Skipped{{ref.Service, ref.Protocol, "name", "a service of this name and protocol comes before"}}
	}
	l.names[ref] = true
	for _, c := range all {
		if reason := l.refusal(ref, vips[c.vip], c.address); reason != "" {
			skipped = append(skipped, Skipped{ref.Service, ref.Protocol, fmt.Sprintf("vips[%d]", c.vip), reason})
			continue
		}
		l.taken[frontend{c.address, ref.Protocol}] = ref.Service
		f := familyOf(c.address.Addr())
		granted[f] = append(granted[f], c.address)
	}
	for f := range granted {
		slices.SortFunc(granted[f], netip.AddrPort.Compare)
	}
	return granted, skipped
}

func (l *ledger) refusal(ref ServiceRef, v api.VIP, address netip.AddrPort) string {
	if !address.IsValid() {
		return fmt.Sprintf("%s has no address: no range of its backends' address family is set (vip.range, vip.range6)", v)
	}
	if holder, taken := l.taken[frontend{address, ref.Protocol}]; taken {
		return fmt.Sprintf("%s %s is served by %s already", address, ref.Protocol, holder)
	}
	if node, own := l.owner[address.Addr()]; own {
		return fmt.Sprintf("%s is the address of the node %s", v, node)
	}
	return ""
}
