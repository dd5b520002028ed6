package agent

import (
	"bufio"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weirproject/weir/api"
)

// facts are what the node knows of itself: what its own file says, and what it
// finds where that says nothing. They are found anew for each stream, so that a
// node whose address has changed is known by the new one.
func (a *Agent) facts(controller string) api.Node {
	c := a.config.Node
	n := api.Node{Name: c.Name, Addresses: c.Addresses, Role: c.Role, Zone: c.Zone, Attributes: c.Attributes, Domain: c.Domain, Resources: c.Resources}
	if len(n.Addresses) == 0 {
		n.Addresses = ownAddresses(controller)
	}
	if n.Resources.CPUs == 0 {
		n.Resources.CPUs = float64(runtime.NumCPU())
	}
	if n.Resources.Memory == 0 {
		n.Resources.Memory = memory()
	}
	var fs unix.Statfs_t
	if n.Resources.Disk == 0 && unix.Statfs(a.config.DataDir, &fs) == nil {
		n.Resources.Disk = fs.Blocks * uint64(fs.Bsize)
	}
	return n
}

// reportedStatus is what the controllers are told: what the node observes, and
// the node as it knows itself.
func (a *Agent) reportedStatus(controller string) api.Status {
	s := a.Status()
	s.Node = a.facts(controller)
	return s
}

// ownAddresses are those of the interfaces, the one by which the controller is
// reached first. Those on lo are left out: virtual addresses are there.
func ownAddresses(controller string) []netip.Addr {
	var all []netip.Addr
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 || isContainers(i.Name) {
			continue
		}
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				all = append(all, p.Addr().Unmap())
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	if first := wayTo(controller); first.IsValid() {
		all = slices.DeleteFunc(all, func(a netip.Addr) bool { return a == first })
		all = slices.Insert(all, 0, first)
	}
	return all
}

// wayTo is the address that packets to the controller leave from. Nothing is
// sent.
func wayTo(controller string) netip.Addr {
	u, err := url.Parse(controller)
	if err != nil {
		return netip.Addr{}
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil || from.Addr().IsLoopback() {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// memory of the machine in bytes; 0 when it cannot be read.
func memory() uint64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
