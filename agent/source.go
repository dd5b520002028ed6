package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/dnsproxy"
	"github.com/weirproject/weir/vip"
	"github.com/weirproject/weir/zones"
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
	var faults []error
	if d.policy != nil {
		source := d.sources[sourceKey(d.policy)]
		faults = append(faults, source.Locate(checkPolicy(s)))
	}
	skipped := vip.Check(s)
	for _, skip := range skipped {
		source := d.sources["service "+skip.Service+"/"+string(skip.Protocol)]
		faults = append(faults, source.Errorf(skip.Field, "%s", skip.Reason))
	}
	if _, err := dnsproxy.Compile(s, c.dnsOptions(nil, nil)); err != nil {
		faults = append(faults, locateNames(d, err))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if !s.Equal(old) && old != nil {
		s.Revision++
	}
	return s, nil
}

// checkPolicy runs the policy's tests, and refuses what the agent cannot enforce.
func checkPolicy(s *api.Snapshot) error {
	for i, rule := range s.Policy.Egress {
		if len(rule.Names) > 0 {
			return &api.FieldError{
				Field:  fmt.Sprintf("egress[%d].names", i),
				Reason: "the agent does not tell the packet filter what names its DNS proxy gave out yet; write networks (cidrs) instead",
			}
		}
	}
	return zones.Bind(s.Policy, zones.StateOf(s), time.Now()).Check()
}

// locateNames gives the faults that the names' compiler found their places. It
// names the documents, as it sees no files.
func locateNames(d *documents, err error) error {
	var located []error
	for _, fault := range unwrap(err) {
		located = append(located, locateName(d, fault))
	}
	return errors.Join(located...)
}

func unwrap(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

func locateName(d *documents, fault error) error {
	for _, r := range d.records {
		if reason, ok := strings.CutPrefix(fault.Error(), fmt.Sprintf("record %s (%s): ", r.Name, r.Type)); ok {
			return d.sources[sourceKey(&r)].Errorf("", "%s", reason)
		}
	}
	return fmt.Errorf("compile the DNS names: %w", fault)
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
	all, err := net.InterfaceAddrs()
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
