package dnsproxy

import (
	"fmt"
	"net/netip"

	"github.com/weirproject/weir/api"
)

// The zones that DC/OS has beside the cluster's domain, on the wire.
const (
	dcosDirectory = "\x08thisdcos\x09directory\x00"
	dcosGlobal    = "\x08thisdcos\x06global\x00"
	dcosSpartan   = "\x07spartan\x00"
	dcosZK        = "\x02zk\x00"
	// dcosKeeperNames are zk-1.zk to zk-5.zk.
	dcosKeepers = 5
)

// dcosFixed claims the names that DC/OS has whatever runs. What keeps its state
// is here the controllers.
func (c *claims) dcosFixed(controllers []*api.Node, self *api.Node) {
	c.asDerived("the DC/OS names", rankShared)
	c.address(c.below(dcosSpartan, "ready"), DefaultTTL, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	thisNode := c.below(dcosDirectory, "thisnode")
	c.exists(thisNode)
	for _, a := range self.Addresses {
		c.address(thisNode, DefaultTTL, a)
	}
	for _, n := range controllers {
		for _, a := range n.Addresses {
			c.address(c.below(dcosDirectory, "leader.dcos"), DefaultTTL, a)
			c.address(c.below(dcosDirectory, "master.dcos"), DefaultTTL, a)
		}
	}
	for i := range dcosKeepers {
		if len(controllers) > 0 {
			for _, a := range controllers[i%len(controllers)].Addresses {
				c.address(c.below(dcosZK, fmt.Sprint("zk-", i+1)), DefaultTTL, a)
			}
		}
	}
}

// dcosRenames are suffixes that DC/OS answers as others. The longer come first.
func dcosRenames(domain, cluster string) ([]rename, error) {
	const l4lb, dclb, mesos = "\x04l4lb", "\x04dclb", "\x05mesos"
	all := []rename{
		{dclb + dcosDirectory, l4lb + dcosDirectory}, {dclb + dcosGlobal, l4lb + dcosDirectory},
		{mesos + dcosDirectory, domain}, {mesos + dcosGlobal, domain}, {dcosGlobal, dcosDirectory},
	}
	if cluster == "" {
		return all, nil
	}
	suffix, err := wireName(cluster, "dcos.directory")
	if err != nil {
		return nil, fmt.Errorf("read the DC/OS cluster id %q: %w", cluster, err)
	}
	return append(all, rename{dclb + suffix, l4lb + dcosDirectory}, rename{mesos + suffix, domain}, rename{suffix, dcosDirectory}), nil
}

// dcosTask claims <task>.<framework>.{agentip,containerip,autoip}.dcos. Dots are
// hyphens there.
func (c *claims) dcosTask(a *app, t *Task) {
	c.asDerived(a.owner, rankTask)
	service := t.Service
	if service == "" {
		service = builtIn
	}
	auto, first, framework := t.reachedAt(), a.label(0), label(service)
	for _, p := range t.Ports {
		if p.HostPort > 0 {
			auto = t.nodeAddresses()
		}
	}
	c.addresses(c.below(dcosDirectory, first, framework, "agentip.dcos"), t.nodeAddresses())
	c.addresses(c.below(dcosDirectory, first, framework, "containerip.dcos"), t.reachedAt())
	c.addresses(c.below(dcosDirectory, first, framework, "autoip.dcos"), auto)
}
