package agent

import "net/netip"

// NetworksConfig configures the networks of containers. Those of the cluster are
// documents; this is of the node alone.
type NetworksConfig struct {
	// Bridge and Bridge6 are the subnets of the network bridge, which is local to
	// the node; without both there is none.
	Bridge  netip.Prefix `json:"bridge"`
	Bridge6 netip.Prefix `json:"bridge6"`
}

func defaultNetworks() NetworksConfig {
	return NetworksConfig{Bridge: netip.MustParsePrefix("172.31.254.0/24"), Bridge6: netip.MustParsePrefix("fd77:6562:7200::/64")}
}

func (c NetworksConfig) validate() error {
	for _, one := range []struct {
		key    string
		prefix netip.Prefix
		v4     bool
	}{{"networks.bridge", c.Bridge, true}, {"networks.bridge6", c.Bridge6, false}} {
		p := one.prefix
		switch {
		case !p.IsValid():
		case p.Addr().Is4() != one.v4:
			return fault(one.key, "%s is of the other address family", p)
		case p != p.Masked():
			return fault(one.key, "%s has bits set behind its length: did you mean %s?", p, p.Masked())
		case p.Bits() > p.Addr().BitLen()-2:
			return fault(one.key, "%s has no room for a container", p)
		}
	}
	return nil
}
