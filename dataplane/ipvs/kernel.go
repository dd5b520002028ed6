package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// kernel is IPVS in one network namespace. A test has another one.
type kernel interface {
	// services lists all with their destinations.
	services() (map[virtual]*service, error)
	// list calls f with every service, which has no destinations yet, and the
	// number of connections that were made through it.
	list(f func(v virtual, s *service, connections uint64) error) error
	// destinations calls f with every destination of a service.
	destinations(v virtual, f func(destination)) error
	// do changes one. The error is ENOENT when the scheduler is missing.
	do(s step) error
	close()
}

// socket speaks to IPVS over generic netlink.
type socket struct {
	family uint16
	shared map[int]*nl.SocketHandle
}

// open opens a socket in the thread's network namespace. It loads the kernel's
// module when it is missing.
func open() (*socket, error) {
	family, err := netlink.GenlFamilyGet("IPVS") // the kernel tries modprobe itself
	if err != nil {
		out, failed := exec.Command("modprobe", "ip_vs").CombinedOutput()
		if family, err = netlink.GenlFamilyGet("IPVS"); err != nil {
			why := strings.TrimSpace(string(out))
			if why == "" && failed != nil {
				why = failed.Error()
			}
			return nil, fmt.Errorf("find ipvs in the kernel (is its module ip_vs there? modprobe ip_vs: %s): %w", why, err)
		}
	}
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &socket{family: family.ID, shared: map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: s}}}, nil
}

func (k *socket) close() {
	if s := k.shared[unix.NETLINK_GENERIC]; s != nil {
		s.Close()
	}
}

func (k *socket) request(command uint8, flags int, attributes ...*nl.RtAttr) ([][]byte, error) {
	r := nl.NewNetlinkRequest(int(k.family), flags)
	r.Sockets = k.shared
	r.AddData(&nl.Genlmsg{Command: command, Version: 1})
	for _, a := range attributes {
		r.AddData(a)
	}
	return r.Execute(unix.NETLINK_GENERIC, 0)
}

func (k *socket) services() (map[virtual]*service, error) {
	all := map[virtual]*service{}
	err := k.list(func(v virtual, s *service, _ uint64) error { all[v] = s; return nil })
	if err != nil || len(all) == 0 {
		return all, err
	}
	return all, readDestinations(all)
}

// list passes over services by firewall mark, which have no address.
func (k *socket) list(f func(v virtual, s *service, connections uint64) error) error {
	answers, err := k.request(cmdGetService, unix.NLM_F_DUMP)
	if err != nil {
		return fmt.Errorf("list ipvs services: %w", err)
	}
	for _, m := range answers {
		v, s, connections, err := parseService(m)
		if errors.Is(err, errNotByAddress) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list ipvs services: %w", err)
		}
		if err := f(v, s, connections); err != nil {
			return err
		}
	}
	return nil
}

func (k *socket) destinations(v virtual, f func(destination)) error {
	answers, err := k.request(cmdGetDestination, unix.NLM_F_DUMP, identify(v))
	if err != nil {
		return fmt.Errorf("list destinations of %s: %w", v, err)
	}
	for _, m := range answers {
		d, err := parseDestination(m, v.At.Addr().Is6())
		if err != nil {
			return fmt.Errorf("list destinations of %s: %w", v, err)
		}
		f(d)
	}
	return nil
}

func (k *socket) do(s step) error {
	var err error
	switch s.op {
	case addService:
		_, err = k.request(cmdNewService, unix.NLM_F_ACK, describe(s.at, s.service))
	case editService:
		_, err = k.request(cmdSetService, unix.NLM_F_ACK, describe(s.at, s.service))
	case deleteService:
		_, err = k.request(cmdDeleteService, unix.NLM_F_ACK, identify(s.at))
	case addDestination:
		_, err = k.request(cmdNewDestination, unix.NLM_F_ACK, identify(s.at), describeDestination(s.destination, s.weight))
	case editDestination:
		_, err = k.request(cmdSetDestination, unix.NLM_F_ACK, identify(s.at), describeDestination(s.destination, s.weight))
	case deleteDestination:
		_, err = k.request(cmdDeleteDestination, unix.NLM_F_ACK, identify(s.at), describeDestination(s.destination, 0))
	}
	if gone := s.op == deleteService || s.op == deleteDestination; gone && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)) {
		return nil
	}
	return err
}

// destination as it is listed.
type destination struct {
	at          netip.AddrPort
	weight      uint32
	connections uint64 // made so far
	open        uint32 // now
}
