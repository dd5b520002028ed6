package container

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/dataplane"
)

// containerRoutes is the routing table of what containers alone reach by
// tunnels, rulePriority where it is looked up: before the main table.
const (
	containerRoutes = dataplane.ContainerRoutes
	rulePriority    = 1190
)

// routeKey is all that matters of a route of ours.
type routeKey struct {
	to     netip.Prefix
	hop    netip.Addr
	source netip.Addr
	link   int
	table  int
}

// ruleKey is the subnet whose containers look up containerRoutes.
type ruleKey netip.Prefix

func keyOf(r netlink.Route) routeKey {
	return routeKey{to: prefixOf(r.Dst), hop: addrOf(r.Gw), source: addrOf(r.Src), link: r.LinkIndex, table: cmp.Or(r.Table, unix.RT_TABLE_MAIN)}
}

func (k *plan) route(r netlink.Route) {
	r.Protocol = dataplane.ContainerProtocol
	k.routes[keyOf(r)] = r
}

// tunnelRoutes adds the routes into a tunnel, once it is there. The node's own
// packets have its own address as their source: peers know it.
func (k *plan) tunnelRoutes(t *tunnel, link int) {
	for _, e := range t.ends {
		for _, to := range e.targets {
			r := netlink.Route{Dst: ipNet(to.to), Gw: to.hop.AsSlice(), LinkIndex: link, Flags: int(netlink.FLAG_ONLINK), Table: to.table}
			for _, a := range k.table.Addresses {
				if a.Is4() == to.to.Addr().Is4() && to.table == 0 {
					r.Src = a.AsSlice()
					break
				}
			}
			k.route(r)
		}
	}
}

// setRoutes adds missing routes and rules before it removes others.
func (s *Sink) setRoutes(k *plan) error {
	held, err := readRoutes()
	if err != nil {
		return err
	}
	var faults []error
	for key, r := range k.routes {
		if _, there := held[key]; there {
			continue
		}
		if err := netlink.RouteReplace(&r); err != nil {
			faults = append(faults, fmt.Errorf("add route to %s by %s: %w", key.to, key.hop, err))
			continue
		}
		s.wrote()
	}
	for key, r := range held {
		if _, wanted := k.routes[key]; wanted {
			continue
		}
		if err := netlink.RouteDel(&r); err == nil {
			s.removed()
		} else if !errors.Is(err, unix.ESRCH) { // else it was replaced above, or went with its link
			faults = append(faults, fmt.Errorf("remove route to %s: %w", key.to, err))
		}
	}
	return errors.Join(append(faults, s.setRouteRules(k))...)
}

func readRoutes() (map[routeKey]netlink.Route, error) {
	held := map[routeKey]netlink.Route{}
	filter := &netlink.Route{Protocol: dataplane.ContainerProtocol, Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range all {
			held[keyOf(r)] = r
		}
	}
	return held, nil
}

func (s *Sink) setRouteRules(k *plan) error {
	held, err := readRouteRules()
	if err != nil {
		return err
	}
	for key := range k.rules {
		if held[key] {
			continue
		}
		if err := netlink.RuleAdd(routeRule(key)); err != nil {
			return fmt.Errorf("add the routing rule for %s: %w", netip.Prefix(key), err)
		}
		s.wrote()
	}
	for key := range held {
		if k.rules[key] {
			continue
		}
		if err := netlink.RuleDel(routeRule(key)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the routing rule for %s: %w", netip.Prefix(key), err)
		}
		s.removed()
	}
	return nil
}

func routeRule(key ruleKey) *netlink.Rule {
	r := netlink.NewRule()
	r.Src, r.Table, r.Priority, r.Protocol = ipNet(netip.Prefix(key)), containerRoutes, rulePriority, dataplane.ContainerProtocol
	r.Family = familyOf(netip.Prefix(key).Addr())
	return r
}

func readRouteRules() (map[ruleKey]bool, error) {
	held := map[ruleKey]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RuleList(family)
		if err != nil {
			return nil, fmt.Errorf("list routing rules: %w", err)
		}
		for _, r := range all {
			if r.Protocol == dataplane.ContainerProtocol && r.Table == containerRoutes && r.Src != nil {
				held[ruleKey(prefixOf(r.Src))] = true
			}
		}
	}
	return held, nil
}
