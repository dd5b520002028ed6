package zones

import (
	"net/netip"
	"slices"

	"github.com/weirproject/weir/api"
)

// Whois tells whose an address is: nodes that have it, apps with an instance
// there, and zones that it is in. A service counts as an app by its id.
func (v *View) Whois(a netip.Addr) api.ZoneIdentity {
	a = plain(a)
	id := api.ZoneIdentity{Zones: v.zonesOf(a)}
	for _, n := range v.state.Nodes {
		if hasAddress(n, a) {
			id.Nodes = append(id.Nodes, n.Name)
		}
	}
	for _, s := range v.state.Services {
		has := func(b api.Backend) bool { return plain(b.Address.Addr()) == a }
		if slices.ContainsFunc(s.Backends, has) && !slices.Contains(id.Apps, appID(s)) {
			id.Apps = append(id.Apps, appID(s))
		}
	}
	for _, app := range v.state.Apps {
		has := func(i Instance) bool { return plain(i.Address) == a }
		if slices.ContainsFunc(app.Instances, has) && !slices.Contains(id.Apps, app.ID) {
			id.Apps = append(id.Apps, app.ID)
		}
	}
	slices.Sort(id.Apps)
	return id
}

// Members lists a zone's addresses as the fewest networks; none for a zone that
// is not there.
func (v *View) Members(zone string) []netip.Prefix {
	if v.policy == nil {
		return nil
	}
	if _, known := v.policy.Zones[zone]; !known {
		return nil
	}
	return v.end(zone).prefixes()
}
