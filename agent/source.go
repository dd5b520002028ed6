package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/vip"
	"github.com/weirproject/weir/wanted"
)

// buildSnapshot makes the wanted state of this node from the documents: pure
// but for the interfaces' addresses. Whatever would be refused by a compiler
// is refused here, with its place, so that a Snapshot can always be applied.
func buildSnapshot(c Config, d *documents, old *api.Snapshot) (*api.Snapshot, error) {
	s := &api.Snapshot{Revision: 1, Services: d.services, Records: d.records, Policy: d.policy}
	if old != nil {
		s.Revision, s.VIPs = old.Revision, old.VIPs
	}
	var err error
	if s.Node, err = selfNode(c, d.nodes); err != nil {
		return nil, err
	}
	s.Nodes = withNode(d.nodes, s.Node)
	if s.VIPs, err = vip.Allot(s.VIPs, s.Services, c.VIP.Range, c.VIP.Range6); err != nil {
		return nil, fmt.Errorf("allot the addresses of named VIPs: %w", err)
	}
	_, found := wanted.Check(s, wanted.Options{Names: c.dnsOptions(nil, nil), Now: time.Now()})
	var faults []error
	for _, fault := range found {
		faults = append(faults, d.locate(fault))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if !s.Equal(old) && old != nil {
		s.Revision++
	}
	return s, nil
}

// locate gives a fault the place of the document that it is about.
func (d *documents) locate(fault wanted.Fault) error {
	key := fault.Kind + " " + fault.Key
	if fault.Kind == "policy" && d.policy != nil {
		key = sourceKey(d.policy)
	}
	source, known := d.sources[key]
	if !known {
		return fault.Err
	}
	if len(api.FieldErrors(fault.Err)) == 0 {
		return source.Errorf("", "%s", fault.Err)
	}
	return source.Locate(fault.Err)
}

// selfNode is this node as its own file says, with the addresses of its node
// document, or of its interfaces where it has neither.
func selfNode(c Config, nodes []api.Node) (api.Node, error) {
	self := api.Node{Name: c.Node.Name, Addresses: c.Node.Addresses, Role: c.Node.Role, Zone: c.Node.Zone, Attributes: c.Node.Attributes}
	if len(self.Addresses) == 0 {
		if i := slices.IndexFunc(nodes, func(n api.Node) bool { return n.Name == self.Name }); i >= 0 {
			self.Addresses = nodes[i].Addresses
		}
	}
	if len(self.Addresses) > 0 {
		return self, nil
	}
	all, err := hostAddresses()
	if err != nil {
		return self, fmt.Errorf("list the node's addresses: %w", err)
	}
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		self.Addresses = append(self.Addresses, prefix.Addr())
	}
	slices.SortFunc(self.Addresses, netip.Addr.Compare)
	return self, nil
}

// withNode lists the nodes with this one as it knows itself.
func withNode(nodes []api.Node, self api.Node) []api.Node {
	all := slices.DeleteFunc(slices.Clone(nodes), func(n api.Node) bool { return n.Name == self.Name })
	all = append(all, self)
	slices.SortFunc(all, func(a, b api.Node) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (c Config) ranges() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []netip.Prefix{c.VIP.Range, c.VIP.Range6} {
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return all
}
