package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire joins the host to the router, as network 10.98.<n>.0/24: the router is
// .1, the host .2 and its default route leads to the router.
func (s *site) wire(n int, host string, pid int) error {
	name := fmt.Sprintf("to-%s", host)
	err := s.lab.Do(routerHost, func() error {
		if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := address(name, fmt.Sprintf("10.98.%d.1/24", n)); err != nil || host != serverHost {
			return err
		}
		return route(backendNet, "10.98.0.2")
	})
	if err != nil {
		return fmt.Errorf("wire the router to %s: %w", host, err)
	}
	err = s.lab.Do(host, func() error {
		if err := address("eth0", fmt.Sprintf("10.98.%d.2/24", n)); err != nil {
			return err
		}
		return errors.Join(route(netip.MustParsePrefix("0.0.0.0/0"), fmt.Sprintf("10.98.%d.1", n)), tune())
	})
	if err != nil {
		return fmt.Errorf("wire %s to the router: %w", host, err)
	}
	return nil
}

// serverRoutes makes all of backendNet the server's own.
func (s *site) serverRoutes() error {
	return s.lab.Do(serverHost, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		r := &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: ipNet(backendNet),
			Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("add local route to %s: %w", backendNet, err)
		}
		return setSysctl("net/core/somaxconn", "65535")
	})
}

// tune gives the thread's namespace many source ports, and a congestion control
// that does not pace: pacing would measure timers.
func tune() error {
	if err := setSysctl("net/ipv4/tcp_congestion_control", "cubic"); err != nil {
		if err := setSysctl("net/ipv4/tcp_congestion_control", "reno"); err != nil {
			return err
		}
	}
	return setSysctl("net/ipv4/ip_local_port_range", "1024 65535")
}

func setSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func address(link, prefix string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find %s: %w", link, err)
	}
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l)); err != nil {
		return fmt.Errorf("give %s %s: %w", link, prefix, err)
	}
	return nil
}

func route(to netip.Prefix, gateway string) error {
	if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: net.ParseIP(gateway)}); err != nil {
		return fmt.Errorf("add route to %s by %s: %w", to, gateway, err)
	}
	return nil
}
