package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// layWires makes the namespace of the wires, with a bridge for each network.
func (l *Lab) layWires() error {
	err := l.keep(wiresCgroup, l.file("wires.pid"), func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make the wires' namespace: %w", err)
		}
		return quietWires()
	})
	if err != nil {
		return err
	}
	wires, err := l.openWires()
	if err != nil {
		return err
	}
	defer wires.Close()
	for _, n := range l.Spec.Networks {
		snooping := false // it would hold back neighbour discovery until it has learned
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.Name}, MulticastSnooping: &snooping}
		if err := wires.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge %s: %w", n.Name, err)
		}
		if err := wires.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("set bridge %s up: %w", n.Name, err)
		}
	}
	return nil
}

// quietWires keeps the bridges of the thread's namespace from speaking IPv6
// themselves, and the machine's br_netfilter from showing them to iptables.
func quietWires() error {
	for file, value := range map[string]string{
		"ipv6/conf/all/disable_ipv6":      "1",
		"ipv6/conf/default/disable_ipv6":  "1",
		"bridge/bridge-nf-call-iptables":  "0",
		"bridge/bridge-nf-call-ip6tables": "0",
		"bridge/bridge-nf-call-arptables": "0",
	} {
		err := os.WriteFile(filepath.Join("/proc/sys/net", file), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("quieten the wires: %w", err)
		}
	}
	return nil
}

// openWires opens netlink in the wires' namespace.
func (l *Lab) openWires() (*netlink.Handle, error) {
	p, err := readProcess(l.file("wires.pid"))
	if err != nil {
		return nil, fmt.Errorf("open the wires: %w", err)
	}
	return p.netlink()
}

// netlink opens a route socket in the network namespace of the process.
func (p process) netlink() (*netlink.Handle, error) {
	ns, err := p.netns()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
}

// netns opens the network namespace of the process.
func (p process) netns() (netns.NsHandle, error) {
	ns, err := netns.GetFromPath(filepath.Join("/proc", strconv.Itoa(p.pid), "ns/net"))
	if err == nil && !p.alive() { // checked after opening: the number may be another's
		ns.Close()
		err = os.ErrProcessDone
	}
	if err != nil {
		return netns.None(), fmt.Errorf("open the network namespace of process %d: %w", p.pid, err)
	}
	return ns, nil
}

// port names the bridge's end of a host's link; it is the same after a loss of
// power, so that cuts hold.
func port(host, network int) string { return fmt.Sprintf("p%d-%d", host, network) }

// ports of the host, by network.
func (l *Lab) ports(index int) map[string]string {
	ports := map[string]string{}
	for n, network := range l.Spec.Networks {
		for _, i := range l.Spec.Hosts[index].Interfaces {
			if i.Network == network.Name {
				ports[network.Name] = port(index, n)
			}
		}
	}
	return ports
}

// connect gives the host its links, addresses and default routes.
func (l *Lab) connect(index int) error {
	h, ports := l.Spec.Hosts[index], l.ports(index)
	p, err := l.init(h.Name)
	if err != nil {
		return err
	}
	ns, err := p.netns()
	if err != nil {
		return err
	}
	defer ns.Close()
	wires, err := l.openWires()
	if err != nil {
		return err
	}
	defer wires.Close()
	host, err := p.netlink()
	if err != nil {
		return err
	}
	defer host.Close()
	for _, i := range h.Interfaces {
		if err := plug(wires, ports[i.Network], i, l.mac(h.Name, i.Network), ns); err != nil {
			return fmt.Errorf("plug %s into network %s: %w", h.Name, i.Network, err)
		}
		if err := configure(host, i); err != nil {
			return fmt.Errorf("configure %s of host %s: %w", i.Network, h.Name, err)
		}
	}
	for _, gateway := range h.Gateway {
		if err := host.RouteAdd(&netlink.Route{Dst: everything(gateway), Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("add route of host %s by %s: %w", h.Name, gateway, err)
		}
	}
	return nil
}

// plug adds a veth pair with one end in the bridge. The other is born in the
// host's namespace, so that neither passes through the machine's.
func plug(wires *netlink.Handle, port string, i Interface, mac net.HardwareAddr, host netns.NsHandle) error {
	bridge, err := wires.LinkByName(i.Network)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
		PeerName:  i.Network, PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(host),
	}
	if err := wires.LinkAdd(veth); err != nil {
		return err
	}
	return wires.LinkSetUp(veth)
}

func configure(host *netlink.Handle, i Interface) error {
	link, err := host.LinkByName(i.Network)
	if err != nil {
		return err
	}
	for _, a := range i.Addresses {
		address := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := host.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return host.LinkSetUp(link)
}

// disconnect removes the host's links at once. The kernel would do so too when
// the namespace goes, but some time later.
func (l *Lab) disconnect(index int) error {
	wires, err := l.openWires()
	if err != nil {
		return err
	}
	defer wires.Close()
	for _, name := range l.ports(index) {
		link, err := wires.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err != nil {
			return fmt.Errorf("find port %s: %w", name, err)
		}
		if err := wires.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove port %s: %w", name, err)
		}
	}
	return nil
}

// mac is the same each time that the lab comes up: locally administered, from
// the names.
func (l *Lab) mac(host, network string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(l.Spec.Name + "\x00" + host + "\x00" + network))
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

// everything is the prefix of the default route to the gateway.
func everything(gateway netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, gateway.BitLen()/8), Mask: net.CIDRMask(0, gateway.BitLen())}
}
