package main

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weirproject/weir/api"
)

type ipConfig = current.IPConfig

// previous is the result of the plugins before, or of the ADD that a CHECK is
// about; nil when there is none.
func (c *config) previous() (*current.Result, error) {
	if c.PrevResult == nil {
		return nil, nil
	}
	r, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult cannot be converted", err.Error())
	}
	return r, nil
}

// result tells what the container was given, behind what plugins before have.
func (c *config) result(args *skel.CmdArgs, made api.Attached) (*current.Result, error) {
	r, err := c.previous()
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &current.Result{}
	}
	r.CNIVersion = current.ImplementedSpecVersion
	inside := len(r.Interfaces) + 1
	r.Interfaces = append(r.Interfaces,
		&current.Interface{Name: made.HostInterface, Mtu: made.MTU},
		&current.Interface{Name: args.IfName, Mac: made.MAC, Mtu: made.MTU, Sandbox: args.Netns})
	for _, i := range made.Interfaces {
		for _, a := range i.Addresses {
			for at, g := range made.Gateways {
				if !g.Contains(a) {
					continue
				}
				r.IPs = append(r.IPs, &current.IPConfig{Interface: &inside, Address: ipNet(netip.PrefixFrom(a, g.Bits())), Gateway: g.Addr().AsSlice()})
				to := made.Ranges[at]
				if i.Default {
					to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
					if a.Is4() {
						to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
					}
				}
				r.Routes = append(r.Routes, &types.Route{Dst: ipNet(to), GW: g.Addr().AsSlice()})
			}
		}
	}
	for _, a := range made.DNS {
		r.DNS.Nameservers = append(r.DNS.Nameservers, a.String())
	}
	return r, nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
